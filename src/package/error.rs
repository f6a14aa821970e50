//! What can be wrong with a package, and where.

use core::fmt;

use crate::format::section;
use crate::op::OpError;

/// Why a package cannot be used, and the place in it that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageError {
    /// What is wrong.
    pub what: What,
    /// Where.
    pub place: Place,
}

/// What is wrong with a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The file does not begin with the format's magic.
    NotAPackage,
    /// The file is of a version that this reader does not know.
    Version {
        /// The version this reader knows.
        supported: u32,
        /// The file's.
        found: u32,
    },
    /// Bytes are missing at the end of the file, or there are too many.
    Length {
        /// The bytes that should be there.
        expected: u64,
        /// The bytes that are there.
        found: u64,
    },
    /// The checksum of a part is not the stored one.
    Checksum {
        /// The stored one.
        expected: u32,
        /// That of the bytes.
        found: u32,
    },
    /// A field has a value other than the only one possible.
    Field {
        /// The field.
        name: &'static str,
        /// The value that it must have.
        expected: u64,
        /// The value that it has.
        found: u64,
    },
    /// A field's value is outside its range.
    Range {
        /// The field.
        name: &'static str,
        /// The largest value that it may have.
        limit: u64,
        /// The value that it has.
        found: u64,
    },
    /// A field's value is none of those that have a meaning.
    Unknown {
        /// The field.
        name: &'static str,
        /// The value that it has.
        found: u64,
    },
    /// An offset is not at its alignment.
    Alignment {
        /// The field.
        name: &'static str,
        /// What it must be a multiple of.
        alignment: u64,
        /// The value that it has.
        found: u64,
    },
    /// Something reaches past the end of what it lies in.
    Outside {
        /// What it is.
        name: &'static str,
        /// Its end (saturated).
        end: u64,
        /// The end of what it lies in.
        limit: u64,
    },
    /// A section that must be there is not.
    Missing,
    /// A section or a program is there twice, or out of order.
    Order,
    /// Two ports have bytes or their name in common.
    Overlap,
    /// The programs of a graph at a size are of stages that do not go together.
    Stage,
    /// What lies in the pinned bytes is no value that an earlier stage gives, or not as the other program says.
    Pinned,
    /// A step is joined to the next one, but there is none, or nothing that the lanes share.
    Joined,
    /// A step reads bytes that all lanes share and that no step of its turn has written.
    Left,
    /// The rows of a step or of a port do not grow with the chunks of context.
    Chunks,
    /// Text is not UTF-8, or a name is cut in the middle of a character.
    Utf8,
    /// A name is empty.
    NoName,
    /// A step's operator, attributes or operands do not fit.
    Operator(OpError),
}

/// A place in a package. What does not apply is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Id of the section.
    pub section: Option<u32>,
    /// Bytes from the beginning of the file, or of the section if there is one.
    pub offset: Option<u64>,
    /// Index of the program.
    pub program: Option<u32>,
    /// Index of the port in its program, inputs before outputs.
    pub port: Option<u32>,
    /// Index of the step in its program.
    pub step: Option<u32>,
    /// Name of the operand slot.
    pub slot: Option<&'static str>,
}

impl Place {
    pub(crate) fn section(id: u32) -> Self {
        Place {
            section: Some(id),
            ..Place::default()
        }
    }

    pub(crate) fn at(offset: u64) -> Self {
        Place {
            offset: Some(offset),
            ..Place::default()
        }
    }

    pub(crate) fn error(self, what: What) -> PackageError {
        PackageError { what, place: self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(id) = self.section {
            match section::NAMES.get((id as usize).wrapping_sub(1)) {
                Some(name) => write!(f, "section {name}")?,
                None => write!(f, "section {id}")?,
            }
            separator = ", ";
        }
        let numbers = [
            ("offset", self.offset),
            ("program", self.program.map(u64::from)),
            ("port", self.port.map(u64::from)),
            ("step", self.step.map(u64::from)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, "{separator}{name} {number}")?;
                separator = ", ";
            }
        }
        if let Some(slot) = self.slot {
            write!(f, "{separator}operand `{slot}`")?;
        }
        Ok(())
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            What::NotAPackage => f.write_str("not a .kiln package"),
            What::Version { supported, found } if found > supported => {
                write!(
                    f,
                    "the package has format version {found}, newer than the version {supported} this program reads"
                )
            }
            What::Version { supported, found } => {
                write!(
                    f,
                    "the package has format version {found}; this program reads version {supported}: compile the model again"
                )
            }
            What::Length { expected, found } if found < expected => {
                write!(f, "truncated: {expected} bytes expected, {found} found")
            }
            What::Length { expected, found } => {
                write!(f, "too long: {expected} bytes expected, {found} found")
            }
            What::Checksum { expected, found } => {
                write!(
                    f,
                    "damaged: checksum {expected:08x} expected, {found:08x} found"
                )
            }
            What::Field {
                name,
                expected,
                found,
            } => write!(f, "{name}: {expected} expected, {found} found"),
            What::Range { name, limit, found } => {
                write!(f, "{name}: at most {limit} expected, {found} found")
            }
            What::Unknown { name, found } => write!(f, "{name}: {found} has no meaning"),
            What::Alignment {
                name,
                alignment,
                found,
            } => {
                write!(
                    f,
                    "{name}: a multiple of {alignment} expected, {found} found"
                )
            }
            What::Outside { name, end, limit } => {
                write!(f, "{name} ends at {end}, past the end at {limit}")
            }
            What::Missing => f.write_str("missing"),
            What::Order => f.write_str("repeated or out of order"),
            What::Overlap => f.write_str("shares bytes or its name with another port"),
            What::Stage => f.write_str("the stages of the graph at this size do not go together"),
            What::Pinned => f.write_str("disagrees with the other stages about the pinned bytes"),
            What::Joined => {
                f.write_str("joined to the next step, but there is none or the lanes share nothing")
            }
            What::Left => f.write_str("reads shared bytes that no step of its turn has written"),
            What::Chunks => f.write_str("its rows do not grow with the chunks of context"),
            What::Utf8 => f.write_str("text is not UTF-8"),
            What::NoName => f.write_str("the name is empty"),
            What::Operator(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place == Place::default() {
            return self.what.fmt(f);
        }
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl core::error::Error for PackageError {}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpError::Unknown(code) => write!(f, "operator {code} is unknown"),
            OpError::AttributeCount => f.write_str("the operator has another number of attributes"),
            OpError::OperandCount => f.write_str("the operator has another number of operands"),
            OpError::Attribute(name) => write!(f, "attribute `{name}` is outside its range"),
            OpError::Slot(name) => {
                write!(
                    f,
                    "operand `{name}` is empty where it must not be, or filled where it must be empty"
                )
            }
            OpError::Space(name) => write!(f, "operand `{name}` lies in the wrong space"),
            OpError::Type(name) => write!(f, "operand `{name}` has the wrong type"),
            OpError::Size(name) => write!(
                f,
                "operand `{name}` has a size other than the attributes say"
            ),
            OpError::Overlap(name) => write!(f, "operand `{name}` overlaps what the step writes"),
        }
    }
}

impl core::error::Error for OpError {}
