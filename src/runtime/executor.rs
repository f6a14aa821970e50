//! From inputs to outputs.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use kiln_kernels::{F16, Moments};
use kiln_package::{DType, Port, Program, Stage, Step};

use super::arena::Arena;
use super::error::Shape;
use super::norms::Norms;
use super::os::lanes::MAX_LANES;
use super::ports::{self, Chunks, Data, Direction};
use super::step::{self, Place};
use super::stream::{Reading, Stream, Streamed};
use super::threads::{self, Pool};
use super::{Cancellation, Model, Observer, ProgramId, RuntimeError, StepInfo, model};

/// The most inputs that a graph is given.
const MAX_INPUTS: usize = 16;

/// How a session runs.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads, the calling one included; as many as there are cores for this process if `None`. Results do not depend
    /// on it.
    pub threads: Option<NonZeroUsize>,
    /// The most bytes that the session may allocate.
    pub memory_limit: Option<u64>,
    /// The most bytes of this process that may be resident, mapped weights included: weights are then read when they are
    /// needed and let go afterwards, else they stay. Results do not depend on it.
    pub ram: Option<u64>,
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
    stream: Option<Stream>,
    kept: Option<Kept>,
}

/// What the last evaluation has left in the arena for the next one of the same graph.
#[derive(Clone, Copy)]
struct Kept {
    program: ProgramId,
    lanes: usize,
    chunks: Chunks,
    /// A bit for each stage whose values are there.
    stages: u8,
}

impl Session {
    /// A session for `programs`, each with the most lanes (1 or 2) that it will be evaluated with.
    pub fn new(
        model: &Model,
        programs: &[(ProgramId, usize)],
        options: &SessionOptions,
    ) -> Result<Self, RuntimeError> {
        if let Some((_, lanes)) = programs
            .iter()
            .find(|(_, lanes)| !(1..=MAX_LANES).contains(lanes))
        {
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
        let stream = match options.ram {
            Some(ram) => {
                let room = model.room(programs, threads, ram)?;
                let reading = Reading {
                    cached: model.cached(programs, threads, ram),
                    ..Reading::default()
                };
                let stream = Stream::new(model, room, reading);
                Some(stream.map_err(RuntimeError::Threads)?)
            }
            None => None,
        };
        Ok(Session {
            model: model.clone(),
            arena: Arena::new(arena_bytes, scratch_bytes, threads.get())?,
            pool: Pool::new(threads).map_err(RuntimeError::Threads)?,
            cancellation: options.cancellation.clone(),
            stream,
            kept: None,
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

    /// Begins an evaluation of a graph with 1 or 2 lanes, which are independent of each other but for the number of
    /// their context's chunks: each has its inputs and its outputs.
    pub fn prepare<'d>(
        &mut self,
        program: ProgramId,
        lanes: usize,
    ) -> Result<Evaluation<'_, 'd>, RuntimeError> {
        if !(1..=MAX_LANES).contains(&lanes) {
            return Err(RuntimeError::Lanes(lanes));
        }
        let (arena, scratch) = self.model.needs(&[(program, lanes)]);
        if arena > self.arena.bytes() as u64 || scratch > self.arena.scratch_bytes() as u64 {
            return Err(RuntimeError::NotPlanned {
                graph: self.model.program(program).graph(),
                lanes,
            });
        }
        let given = [[None; MAX_INPUTS]; MAX_LANES];
        Ok(Evaluation {
            session: self,
            program,
            lanes,
            chunks: None,
            given,
        })
    }

    /// As under a budget that leaves so many bytes for weights beside the whole arena, whatever else the process holds.
    #[cfg(test)]
    pub(super) fn with_window(mut self, window: u64, reading: Reading) -> Self {
        let room = window + self.arena.bytes() as u64;
        self.stream = Some(Stream::new(&self.model, room, reading).expect("a thread"));
        self
    }

    /// What the reader of the weights has done; `None` without [`SessionOptions::ram`].
    pub fn streamed(&self) -> Option<Streamed> {
        self.stream.as_ref().map(Stream::streamed)
    }

    /// What is left of an evaluation of that graph with so many lanes.
    fn kept(&self, program: ProgramId, lanes: usize) -> Option<Kept> {
        self.kept
            .filter(|kept| kept.program == program && kept.lanes == lanes)
    }
}

/// A graph about to be evaluated: it takes inputs, then [`Evaluation::run`].
pub struct Evaluation<'s, 'd> {
    session: &'s mut Session,
    program: ProgramId,
    lanes: usize,
    /// Chunks of the context, once an input has told.
    chunks: Option<Chunks>,
    /// Each lane's inputs, by their index among [`Model::inputs`].
    given: [[Option<Data<'d>>; MAX_INPUTS]; MAX_LANES],
}

impl<'s, 'd> Evaluation<'s, 'd> {
    /// Gives a lane an input. `shape` is that of the program's port, the batch of 1 included; a port whose rows grow with
    /// the context takes 1 to [`Model::max_chunks`] times 77 of them. Token ids must be inside the vocabulary.
    pub fn input(
        &mut self,
        lane: usize,
        name: &str,
        shape: &[usize],
        data: Data<'d>,
    ) -> Result<&mut Self, RuntimeError> {
        let (id, lanes) = (self.program, self.lanes);
        let model = &self.session.model;
        let program = model.program(id);
        let found = model
            .inputs(id)
            .enumerate()
            .find(|(_, port)| port.name == name);
        let unknown = || ports::unknown(program.graph(), Direction::Input, name, model.inputs(id));
        let (index, port) = found.ok_or_else(unknown)?;
        let (chunks, port) = variant(port, model.max_chunks(id), self.chunks, shape)?;
        ports::check_len(&port, data.len())?;
        match (port.dtype, data) {
            (DType::F32 | DType::F16, Data::F32(_)) => {}
            (DType::I32, Data::I32(ids)) => {
                model
                    .stages(id)
                    .try_for_each(|program| ports::check_ids(&program, name, ids))?;
            }
            (DType::I32, Data::I64(ids)) => {
                model
                    .stages(id)
                    .try_for_each(|program| ports::check_ids(&program, name, ids))?;
            }
            (dtype, data) => {
                let expected = if matches!(dtype, DType::F32 | DType::F16) {
                    "f32"
                } else {
                    "i32 or i64"
                };
                return Err(RuntimeError::Type {
                    name: name.to_owned(),
                    expected,
                    found: data.type_name(),
                });
            }
        }
        if lane >= lanes {
            return Err(RuntimeError::Lane { lanes, found: lane });
        }
        let Some(slot) = self.given[lane].get_mut(index) else {
            return Err(unusable(
                &program,
                format!("`{name}`"),
                format!("more than {MAX_INPUTS} inputs"),
            ));
        };
        *slot = Some(data);
        if port.per_chunk {
            self.chunks = Some(chunks);
        }
        Ok(self)
    }

    /// Whether the input must be given: not when the last evaluation of the session was one of the same graph with the
    /// same lanes, and all that depends on this input alone is still there from it.
    pub fn needs(&self, name: &str) -> bool {
        let kept = self
            .session
            .kept(self.program, self.lanes)
            .map_or(0, |kept| kept.stages);
        let mut stages = self.session.model.stages(self.program).enumerate();
        stages.any(|(stage, program)| {
            kept >> stage & 1 == 0 && model::given(&program).any(|port| port.name == name)
        })
    }

    /// Runs the graph's programs, each step on all lanes, telling `observer` of every one ([`Silent`](super::Silent) if
    /// nobody cares). What depends on the prompt alone, or on the timestep alone, runs only when its inputs are given;
    /// else what the last evaluation has left of it serves again, see [`Evaluation::needs`]. A timestep that the lanes have
    /// in common is computed once. Weights that no run of the
    /// model has read yet are checked first, within the step that reads them.
    ///
    /// An f16 program whose numbers grow too large leaves infinities or NaN in its outputs; this is no error here.
    pub fn run<O: Observer>(self, observer: &mut O) -> Result<Outputs<'s>, RuntimeError> {
        self.run_with(Norms::Own, observer)
    }

    /// [`Evaluation::run`] with other statistics than each norm's own. Only of a graph of one program, in one lane.
    pub fn run_with<O: Observer>(
        self,
        norms: Norms<'_>,
        observer: &mut O,
    ) -> Result<Outputs<'s>, RuntimeError> {
        let Evaluation {
            session,
            program: id,
            lanes,
            chunks,
            given,
        } = self;
        let mut kept = session.kept(id, lanes).unwrap_or_else(|| {
            let most = session.model.max_chunks(id);
            Kept {
                program: id,
                lanes,
                chunks: Chunks { count: most, most },
                stages: 0,
            }
        });
        kept.chunks = chunks.unwrap_or(kept.chunks);
        session.kept = None;
        let is_own = matches!(norms, Norms::Own);
        if !is_own && (lanes > 1 || !norms.fit(&session.model.program(id))) {
            let program = session.model.program(id);
            return Err(unusable(&program, "norms".into(), "of another program"));
        }
        if session.stream.is_some() {
            let used = session.model.arena_bytes(id, lanes);
            session.arena.keep(used as usize);
        }
        for (number, program) in session.model.clone().stages(id).enumerate() {
            let mut stage = StageRun {
                session,
                id,
                program,
                number,
                lanes,
                chunks: kept.chunks,
                norms,
            };
            if !stage.is_fresh(&given) && kept.stages >> number & 1 == 1 {
                continue;
            }
            let shared = program.stage() == Stage::Timestep && stage.lanes_agree(&given);
            if shared {
                stage.lanes = 1;
            }
            stage.store(&given)?;
            stage.run(observer)?;
            if shared {
                stage.share(lanes)?;
            }
            if matches!(program.stage(), Stage::Prompt | Stage::Timestep) {
                kept.stages |= 1 << number;
            }
        }
        session.kept = Some(kept);
        Ok(Outputs {
            session,
            program: id,
            lanes,
        })
    }
}

/// The input with the number of chunks that makes its shape the one found. If others have told the number before, it is
/// that.
fn variant<'a>(
    port: Port<'a>,
    most: u32,
    before: Option<Chunks>,
    found: &[usize],
) -> Result<(Chunks, Port<'a>), RuntimeError> {
    let before = before.filter(|_| port.per_chunk);
    let variants = || {
        ports::variants(port, most)
            .filter(|(chunks, _)| before.is_none_or(|before| before == *chunks))
    };
    variants()
        .find(|(_, port)| ports::fits(port, found))
        .ok_or_else(|| RuntimeError::Shape {
            name: port.name.to_owned(),
            expected: variants().map(|(_, port)| ports::shape(&port)).collect(),
            found: Shape::from(found),
        })
}

/// One of the programs of an evaluation.
struct StageRun<'r, 'p> {
    session: &'r mut Session,
    id: ProgramId,
    program: Program<'p>,
    /// The stage's number among those of the graph.
    number: usize,
    lanes: usize,
    chunks: Chunks,
    norms: Norms<'r>,
}

type Given<'d> = [[Option<Data<'d>>; MAX_INPUTS]; MAX_LANES];

impl StageRun<'_, '_> {
    /// Whether any of its inputs was given.
    fn is_fresh(&self, given: &Given<'_>) -> bool {
        let model = &self.session.model;
        let mut all = model
            .inputs(self.id)
            .enumerate()
            .filter(|(index, _)| given.iter().any(|lane| lane[*index].is_some()));
        all.any(|(_, port)| model::given(&self.program).any(|own| own.name == port.name))
    }

    /// Whether every lane is given the same.
    fn lanes_agree(&self, given: &Given<'_>) -> bool {
        let agree = |(a, b): (&Option<Data<'_>>, &Option<Data<'_>>)| match (a, b) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        };
        let index = |name| {
            self.session
                .model
                .inputs(self.id)
                .position(|input| input.name == name)
        };
        given[1..self.lanes].iter().all(|lane| {
            let mut own = model::given(&self.program).map(|port| index(port.name));
            own.all(|index| index.is_some_and(|index| agree((&given[0][index], &lane[index]))))
        })
    }

    /// Copies what the first lane has computed to the others.
    fn share(&mut self, lanes: usize) -> Result<(), RuntimeError> {
        let lane_bytes = self.session.model.lane_bytes(self.id) as usize;
        for (lane, port) in
            (1..lanes).flat_map(|lane| self.program.outputs().map(move |port| (lane, port)))
        {
            let refused = |error| unusable(&self.program, format!("`{}`", port.name), error);
            let (offset, bytes) = (port.offset as usize, port.bytes as usize);
            let (mut claims, _) = self.session.arena.parts();
            let from = claims.read::<u8>(offset, bytes).map_err(refused)?;
            claims
                .write::<u8>(lane * lane_bytes + offset, bytes)
                .map_err(refused)?
                .copy_from_slice(from);
        }
        Ok(())
    }

    /// Puts its inputs into the arena.
    fn store(&mut self, given: &Given<'_>) -> Result<(), RuntimeError> {
        let Self {
            session,
            id,
            program,
            lanes,
            chunks,
            ..
        } = self;
        let lane_bytes = session.model.lane_bytes(*id);
        for (lane, given) in given[..*lanes].iter().enumerate() {
            for port in model::given(program) {
                let data = session
                    .model
                    .inputs(*id)
                    .position(|input| input.name == port.name);
                let Some(data) = data.and_then(|index| given.get(index).copied().flatten()) else {
                    return Err(RuntimeError::MissingTensor {
                        graph: program.graph(),
                        name: port.name.to_owned(),
                    });
                };
                let port = port.at_chunks(chunks.count, chunks.most);
                let (offset, bytes) = (
                    (lane as u64 * lane_bytes + port.offset) as usize,
                    port.bytes as usize,
                );
                let (mut claims, _) = session.arena.parts();
                let refused = |error| unusable(program, format!("`{}`", port.name), error);
                match (port.dtype, data) {
                    (DType::F32, Data::F32(data)) => {
                        ports::store(
                            &port,
                            data,
                            claims.write::<f32>(offset, bytes).map_err(refused)?,
                        );
                    }
                    (DType::F16, Data::F32(data)) => {
                        ports::store(
                            &port,
                            data,
                            claims.write::<F16>(offset, bytes).map_err(refused)?,
                        );
                    }
                    (DType::I32, Data::I32(ids)) => {
                        ports::store_ids(ids, claims.write(offset, bytes).map_err(refused)?);
                    }
                    (DType::I32, Data::I64(ids)) => {
                        ports::store_ids(ids, claims.write(offset, bytes).map_err(refused)?);
                    }
                    (dtype, _) => return Err(unusable(program, format!("`{}`", port.name), dtype)),
                }
            }
        }
        Ok(())
    }

    fn run<O: Observer>(&mut self, observer: &mut O) -> Result<(), RuntimeError> {
        if let Some(stream) = &self.session.stream {
            stream.begin(self.id, self.number, self.session.arena.resident());
        }
        let result = self.steps(observer);
        if let Some(stream) = &self.session.stream {
            stream.end();
        }
        result
    }

    fn steps<O: Observer>(&mut self, observer: &mut O) -> Result<(), RuntimeError> {
        let Self {
            session,
            id,
            program,
            lanes,
            chunks,
            norms,
            ..
        } = self;
        let Session {
            model,
            arena,
            pool,
            cancellation,
            stream,
            ..
        } = &mut **session;
        let package = model.package();
        let lane_bytes = model.lane_bytes(*id) as usize;
        let mut place = Place {
            lanes: 0..*lanes,
            lane_bytes,
            border: program.lane_bytes() as usize,
            shared: *lanes * lane_bytes,
            chunks: *chunks,
            weights: package.weights(),
            moments: Moments::default(),
        };
        let mut groups = 0;
        for turn in program.turns() {
            let apart = turn.apart && *lanes > 1;
            let rounds = if apart { *lanes } else { 1 };
            for (round, index) in
                (0..rounds).flat_map(|round| turn.steps.clone().map(move |index| (round, index)))
            {
                let Some(step) = program.step(index) else {
                    continue;
                };
                if cancellation.is_cancelled() {
                    return Err(RuntimeError::Cancelled);
                }
                let start = O::TIMED.then(Instant::now);
                if let Some(stream) = stream {
                    stream.reach(index).map_err(|source| RuntimeError::Open {
                        origin: model.origin().to_owned(),
                        source,
                    })?;
                }
                model
                    .verified()
                    .check(&package, &step, pool)
                    .map_err(|error| model.damaged(error, step.name()))?;
                if apart {
                    place.lanes = round..round + 1;
                } else {
                    place.lanes = 0..*lanes;
                }
                place.moments = norms.take(&step.op(), &mut groups);
                step::run(&step, &place, model.kernels(), arena, pool)
                    .map_err(|error| failed(program, index, &step, error))?;
                if let Some(stream) = stream
                    && round + 1 == rounds
                {
                    stream.leave(index);
                }
                observer.step(StepInfo {
                    stage: program.stage(),
                    index,
                    count: program.len(),
                    op: step.op().name(),
                    name: step.name(),
                    integers: step::integers(&step),
                    lane: apart.then_some(round),
                    macs: step::macs(&step, *chunks).saturating_mul(place.lanes.len() as u64),
                    elapsed: start.map_or(Duration::ZERO, |start| start.elapsed()),
                });
            }
        }
        Ok(())
    }
}

/// The error of a step that cannot be run.
fn failed(
    program: &Program<'_>,
    index: usize,
    step: &Step<'_>,
    error: impl fmt::Display,
) -> RuntimeError {
    let stage = match program.stage() {
        Stage::Whole => String::new(),
        stage => format!("{stage}, "),
    };
    let part = format!(
        "{stage}step {index} ({} `{}`)",
        step.op().name(),
        step.name()
    );
    unusable(program, part, error)
}

/// What a graph has computed, until the session is used again.
pub struct Outputs<'s> {
    session: &'s mut Session,
    program: ProgramId,
    lanes: usize,
}

impl Outputs<'_> {
    /// The shape of an output.
    pub fn shape(&self, name: &str) -> Result<Shape, RuntimeError> {
        let program = self.session.model.program(self.program);
        ports::output(&program, name).map(|port| ports::shape(&port))
    }

    /// Copies a lane's output into `data`, row-major in the port's shape.
    pub fn read(&mut self, lane: usize, name: &str, data: &mut [f32]) -> Result<(), RuntimeError> {
        let program = self.session.model.program(self.program);
        let port = ports::output(&program, name)?;
        ports::check_len(&port, data.len())?;
        if lane >= self.lanes {
            return Err(RuntimeError::Lane {
                lanes: self.lanes,
                found: lane,
            });
        }
        let offset =
            (lane as u64 * self.session.model.lane_bytes(self.program) + port.offset) as usize;
        let bytes = port.bytes as usize;
        let (mut claims, _) = self.session.arena.parts();
        let refused = |error| unusable(&program, format!("`{name}`"), error);
        match port.dtype {
            DType::F32 => ports::load(
                &port,
                claims.read::<f32>(offset, bytes).map_err(refused)?,
                data,
            ),
            DType::F16 => ports::load(
                &port,
                claims.read::<F16>(offset, bytes).map_err(refused)?,
                data,
            ),
            dtype => {
                let name = name.to_owned();
                return Err(RuntimeError::Type {
                    name,
                    expected: "f32 or f16",
                    found: dtype.name(),
                });
            }
        }
        Ok(())
    }
}

fn unusable(program: &Program<'_>, part: String, reason: impl fmt::Display) -> RuntimeError {
    RuntimeError::Unusable {
        graph: program.graph(),
        part,
        reason: reason.to_string(),
    }
}
