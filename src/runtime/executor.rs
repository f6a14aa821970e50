//! From inputs to outputs.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use kiln_kernels::F16;
use kiln_package::{DType, Program};

use super::arena::Arena;
use super::error::Shape;
use super::os::lanes::MAX_LANES;
use super::ports::{self, Data, Direction};
use super::step::{self, Place};
use super::threads::{self, Pool};
use super::{Cancellation, Model, Observer, ProgramId, RuntimeError, StepInfo};

/// How a session runs.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads, the calling one included; as many as there are cores for this process if `None`. Results do not depend
    /// on it.
    pub threads: Option<NonZeroUsize>,
    /// The most bytes that the session may allocate.
    pub memory_limit: Option<u64>,
    /// Stops an evaluation between two steps.
    pub cancellation: Cancellation,
}

impl SessionOptions {
    /// The number of threads that a session with these options has.
    pub fn thread_count(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(threads::default_threads)
    }
}

/// The memory and the threads for running some programs of a model, one at a time.
///
/// Everything is allocated when the session is made; an evaluation allocates nothing unless it fails.
pub struct Session {
    model: Model,
    arena: Arena,
    pool: Pool,
    cancellation: Cancellation,
}

impl Session {
    /// A session for `programs`, each with the most lanes (1 or 2) that it will be evaluated with.
    pub fn new(model: &Model, programs: &[(ProgramId, usize)], options: &SessionOptions) -> Result<Self, RuntimeError> {
        if let Some((_, lanes)) = programs.iter().find(|(_, lanes)| !(1..=MAX_LANES).contains(lanes)) {
            return Err(RuntimeError::Lanes(*lanes));
        }
        let threads = options.thread_count();
        let bytes = model.memory(programs, threads).allocated_bytes();
        if let Some(limit) = options.memory_limit
            && bytes > limit
        {
            return Err(RuntimeError::MemoryLimit { bytes, limit });
        }
        let (arena_bytes, scratch_bytes) = model.needs(programs);
        Ok(Session {
            model: model.clone(),
            arena: Arena::new(arena_bytes, scratch_bytes, threads.get())?,
            pool: Pool::new(threads).map_err(RuntimeError::Threads)?,
            cancellation: options.cancellation.clone(),
        })
    }

    /// The model that the session runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Begins an evaluation of a program with 1 or 2 lanes, which are independent of each other: each has its inputs
    /// and its outputs.
    pub fn prepare(&mut self, program: ProgramId, lanes: usize) -> Result<Evaluation<'_>, RuntimeError> {
        if !(1..=MAX_LANES).contains(&lanes) {
            return Err(RuntimeError::Lanes(lanes));
        }
        let view = self.model.program(program);
        let (arena, scratch) = self.model.needs(&[(program, lanes)]);
        if arena > self.arena.bytes() as u64 || scratch > self.arena.scratch_bytes() as u64 {
            return Err(RuntimeError::NotPlanned { graph: view.graph(), lanes });
        }
        Ok(Evaluation { bound: [0; MAX_LANES], lanes, program, session: self })
    }
}

/// Bytes from one lane of a program to the next.
pub(super) fn lane_bytes(program: &Program<'_>) -> u64 {
    program.arena_bytes().next_multiple_of(64)
}

/// A program about to be evaluated: it takes inputs, then [`Evaluation::run`].
pub struct Evaluation<'s> {
    session: &'s mut Session,
    program: ProgramId,
    lanes: usize,
    /// For each lane, a bit for each input that has been given.
    bound: [u32; MAX_LANES],
}

impl<'s> Evaluation<'s> {
    /// Gives a lane an input. `shape` is that of the program's port, the batch of 1 included. Token ids must be inside
    /// the vocabulary.
    pub fn input(
        &mut self,
        lane: usize,
        name: &str,
        shape: &[usize],
        data: Data<'_>,
    ) -> Result<&mut Self, RuntimeError> {
        let model = &self.session.model;
        let program = model.program(self.program);
        let (index, port) = ports::find(&program, Direction::Input, name)?;
        ports::check(&port, Some(shape), data.len())?;
        let offset = offset(&program, lane, self.lanes, port.offset)?;
        let bytes = port.bytes as usize;
        let (mut claims, _) = self.session.arena.parts();
        let refused = |error| unusable(&program, format!("`{name}`"), error);
        match (port.dtype, data) {
            (DType::F32, Data::F32(data)) => {
                ports::store(&port, data, claims.write::<f32>(offset, bytes).map_err(refused)?);
            }
            (DType::F16, Data::F32(data)) => {
                ports::store(&port, data, claims.write::<F16>(offset, bytes).map_err(refused)?);
            }
            (DType::I32, Data::I32(ids)) => {
                ports::store_ids(&program, &port, ids, claims.write(offset, bytes).map_err(refused)?)?;
            }
            (DType::I32, Data::I64(ids)) => {
                ports::store_ids(&program, &port, ids, claims.write(offset, bytes).map_err(refused)?)?;
            }
            (dtype, data) => {
                let expected = if matches!(dtype, DType::F32 | DType::F16) { "f32" } else { "i32 or i64" };
                return Err(RuntimeError::Type { name: name.to_owned(), expected, found: data.type_name() });
            }
        }
        self.bound[lane] |= 1 << index;
        Ok(self)
    }

    /// Runs the program's steps, each on all lanes, telling `observer` of every one ([`Silent`](super::Silent) if
    /// nobody cares). Weights that no run of the model has read yet are checked first, within the step that reads them.
    ///
    /// An f16 program whose numbers grow too large leaves infinities or NaN in its outputs; this is no error here.
    pub fn run<O: Observer>(self, observer: &mut O) -> Result<Outputs<'s>, RuntimeError> {
        let Evaluation { session, program: id, lanes, bound } = self;
        let Session { model, arena, pool, cancellation } = &mut *session;
        let program = model.program(id);
        for bound in &bound[..lanes] {
            if let Some((_, port)) = program.inputs().enumerate().find(|(index, _)| bound >> index & 1 == 0) {
                return Err(RuntimeError::MissingTensor { graph: program.graph(), name: port.name.to_owned() });
            }
        }
        let package = model.package();
        let place = Place { lanes, lane_bytes: lane_bytes(&program) as usize, weights: package.weights() };
        for (index, step) in program.steps().enumerate() {
            if cancellation.is_cancelled() {
                return Err(RuntimeError::Cancelled);
            }
            let start = O::TIMED.then(Instant::now);
            model.verified().check(&package, &step, pool).map_err(|error| model.damaged(error, step.name()))?;
            step::run(&step, &place, model.kernels(), arena, pool).map_err(|error| {
                let part = format!("step {index} ({} `{}`)", step.op().name(), step.name());
                unusable(&program, part, error)
            })?;
            observer.step(StepInfo {
                index,
                count: program.len(),
                op: step.op().name(),
                name: step.name(),
                macs: step.macs().saturating_mul(lanes as u64),
                elapsed: start.map_or(Duration::ZERO, |start| start.elapsed()),
            });
        }
        Ok(Outputs { session, program: id, lanes })
    }
}

/// What a program has computed, until the session is used again.
pub struct Outputs<'s> {
    session: &'s mut Session,
    program: ProgramId,
    lanes: usize,
}

impl Outputs<'_> {
    /// The shape of an output.
    pub fn shape(&self, name: &str) -> Result<Shape, RuntimeError> {
        let program = self.session.model.program(self.program);
        ports::find(&program, Direction::Output, name).map(|(_, port)| ports::shape(&port))
    }

    /// Copies a lane's output into `data`, row-major in the port's shape.
    pub fn read(&mut self, lane: usize, name: &str, data: &mut [f32]) -> Result<(), RuntimeError> {
        let program = self.session.model.program(self.program);
        let (_, port) = ports::find(&program, Direction::Output, name)?;
        ports::check(&port, None, data.len())?;
        let offset = offset(&program, lane, self.lanes, port.offset)?;
        let bytes = port.bytes as usize;
        let (mut claims, _) = self.session.arena.parts();
        let refused = |error| unusable(&program, format!("`{name}`"), error);
        match port.dtype {
            DType::F32 => ports::load(&port, claims.read::<f32>(offset, bytes).map_err(refused)?, data),
            DType::F16 => ports::load(&port, claims.read::<F16>(offset, bytes).map_err(refused)?, data),
            dtype => {
                let name = name.to_owned();
                return Err(RuntimeError::Type { name, expected: "f32 or f16", found: dtype.name() });
            }
        }
        Ok(())
    }
}

/// Where a lane's buffer is in the arena.
fn offset(program: &Program<'_>, lane: usize, lanes: usize, offset: u64) -> Result<usize, RuntimeError> {
    match lane < lanes {
        true => Ok(lane * lane_bytes(program) as usize + offset as usize),
        false => Err(RuntimeError::Lane { lanes, found: lane }),
    }
}

fn unusable(program: &Program<'_>, part: String, reason: impl fmt::Display) -> RuntimeError {
    RuntimeError::Unusable { graph: program.graph(), part, reason: reason.to_string() }
}
