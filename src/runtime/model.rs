//! A package ready to be run, and what running it takes.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use kiln_kernels::{Isa, Kernels};
use kiln_package::{GraphKind, Package, PackageError, Program};

use super::arena;
use super::error::Shape;
use super::executor::lane_bytes;
use super::mmap::Mapped;
use super::weights::Verified;
use super::{RuntimeError, ports};

/// A package at its place in memory, with the kernels chosen for this computer. Clones share it.
#[derive(Clone)]
pub struct Model {
    shared: Arc<Shared>,
    kernels: Kernels,
}

struct Shared {
    mapped: Mapped,
    origin: String,
    verified: Verified,
}

/// A program of a [`Model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(usize);

/// The memory of a run, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Activations: the largest of the programs, which run one after another, times its lanes.
    pub arena_bytes: u64,
    /// Scratch of all threads.
    pub scratch_bytes: u64,
    /// Weights, mapped from the package: the system may drop and read them again.
    pub weight_bytes: u64,
}

impl MemoryPlan {
    /// What a session allocates.
    pub fn allocated_bytes(&self) -> u64 {
        self.arena_bytes.saturating_add(self.scratch_bytes)
    }

    /// The ceiling: what is allocated, and all weights resident.
    pub fn total_bytes(&self) -> u64 {
        self.allocated_bytes().saturating_add(self.weight_bytes)
    }
}

impl Model {
    /// Maps a `.kiln` file and checks everything in it but the weights' contents, which are checked as they are first
    /// read. The file must not be rewritten in place while the model lives.
    ///
    /// The kernels are the fastest that this CPU has, or those that the environment variable `KILN_ISA` names.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        let path = path.as_ref();
        let origin = path.display().to_string();
        Self::new(Mapped::open(path, &origin)?, origin)
    }

    /// As [`Model::open`], from bytes that are a part of the program. They must begin at a multiple of 64.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, RuntimeError> {
        let origin = "embedded model".to_owned();
        Self::new(Mapped::from_static(bytes, &origin)?, origin)
    }

    fn new(mapped: Mapped, origin: String) -> Result<Self, RuntimeError> {
        let kernels = Kernels::from_env()?;
        let verified = Verified::none(mapped.package().weight_blocks());
        Ok(Model { shared: Arc::new(Shared { mapped, origin, verified }), kernels })
    }

    /// The same model with the kernels of an instruction set.
    pub fn with_isa(self, isa: Isa) -> Result<Self, RuntimeError> {
        Ok(Model { kernels: Kernels::new(isa)?, ..self })
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// What the model was opened from, as error messages name it.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// The package: model card, tokenizer, scheduler, programs and weights.
    pub fn package(&self) -> Package<'_> {
        self.shared.mapped.package()
    }

    /// Every program.
    pub fn programs(&self) -> impl Iterator<Item = (ProgramId, Program<'_>)> {
        self.package().programs().enumerate().map(|(index, program)| (ProgramId(index), program))
    }

    /// One program.
    ///
    /// # Panics
    /// When `id` is another model's and this one has fewer programs.
    pub fn program(&self, id: ProgramId) -> Program<'_> {
        self.package().program(id.0).expect("a program of this model")
    }

    /// The picture sizes, height and width in pixels, that there are programs of a graph for. A graph that works for
    /// every size has 0 by 0.
    pub fn sizes(&self, graph: GraphKind) -> impl Iterator<Item = (u32, u32)> {
        let of_graph = self.package().programs().filter(move |program| program.graph() == graph);
        of_graph.map(|program| (program.height(), program.width()))
    }

    /// The program of a graph for pictures of a size in pixels.
    pub fn find(&self, graph: GraphKind, height: u32, width: u32) -> Result<ProgramId, RuntimeError> {
        let fits = |program: &Program<'_>| {
            program.graph() == graph && [(height, width), (0, 0)].contains(&(program.height(), program.width()))
        };
        self.programs().find(|(_, program)| fits(program)).map(|(id, _)| id).ok_or_else(|| {
            let available: Vec<_> = self.sizes(graph).map(|(height, width)| (width, height)).collect();
            match available.is_empty() {
                true => RuntimeError::NoGraph { graph },
                false => RuntimeError::NoProgram { graph, width, height, available },
            }
        })
    }

    /// The program of a graph that takes inputs of these names and shapes: all that the graph has, and no others.
    pub fn find_by_inputs(&self, graph: GraphKind, inputs: &[(&str, &[usize])]) -> Result<ProgramId, RuntimeError> {
        let mut candidates: Vec<_> = self.programs().filter(|(_, program)| program.graph() == graph).collect();
        let (_, first) = candidates.first().ok_or(RuntimeError::NoGraph { graph })?;
        for (name, _) in inputs {
            if first.input(name).is_none() {
                return Err(ports::unknown(first, ports::Direction::Input, name));
            }
        }
        if let Some(port) = first.inputs().find(|port| inputs.iter().all(|(name, _)| *name != port.name)) {
            return Err(RuntimeError::MissingTensor { graph, name: port.name.to_owned() });
        }
        for (name, shape) in inputs {
            let shapes = |program: &Program<'_>| program.input(name).map(|port| ports::shape(&port));
            let mut expected: Vec<Shape> = candidates.iter().filter_map(|(_, program)| shapes(program)).collect();
            candidates.retain(|(_, program)| shapes(program).is_some_and(|Shape(sizes)| sizes == *shape));
            if candidates.is_empty() {
                expected.dedup();
                let (name, found) = ((*name).to_owned(), Shape::from(*shape));
                return Err(RuntimeError::NoMatch { graph, name, expected, found });
            }
        }
        candidates.first().map(|(id, _)| *id).ok_or(RuntimeError::NoGraph { graph })
    }

    /// What running these programs, each with so many lanes, takes at most with `threads` threads.
    pub fn memory(&self, programs: &[(ProgramId, usize)], threads: NonZeroUsize) -> MemoryPlan {
        let (arena_bytes, scratch) = self.needs(programs);
        MemoryPlan {
            arena_bytes: arena::whole_pages(arena_bytes),
            scratch_bytes: arena::whole_pages(scratch).saturating_mul(threads.get() as u64),
            weight_bytes: self.package().weights().len() as u64,
        }
    }

    /// The largest arena, lanes included, and the largest scratch of one thread.
    pub(super) fn needs(&self, programs: &[(ProgramId, usize)]) -> (u64, u64) {
        programs.iter().fold((0, 0), |(arena, scratch), (id, lanes)| {
            let program = self.program(*id);
            let bytes = lane_bytes(&program).saturating_mul(*lanes as u64);
            (arena.max(bytes), scratch.max(program.thread_scratch_bytes()))
        })
    }

    /// Checks every checksum of the package.
    pub fn verify(&self) -> Result<(), RuntimeError> {
        let error =
            |source: PackageError| RuntimeError::Package { origin: self.origin().to_owned(), source: source.into() };
        self.package().verify_all().map_err(error)
    }

    pub(super) fn kernels(&self) -> Kernels {
        self.kernels
    }

    pub(super) fn verified(&self) -> &Verified {
        &self.shared.verified
    }

    /// The error of weights that `step` found damaged.
    pub(super) fn damaged(&self, source: Box<PackageError>, step: &str) -> RuntimeError {
        RuntimeError::Weights { origin: self.shared.origin.clone(), source, step: step.to_owned() }
    }
}
