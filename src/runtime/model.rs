//! A package ready to be run, and what running it takes.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use kiln_kernels::{Isa, Kernels};
use kiln_package::{GraphKind, Package, PackageError, Port, Program, Stage};

use super::arena;
use super::error::Shape;
use super::mmap::Mapped;
use super::norms::NormMoments;
use super::os::memory::{available_bytes, resident_bytes};
use super::os::pages;
use super::weights::Verified;
use super::{RuntimeError, ports, step, stream};

/// What the process has besides a session's own memory, where the system does not tell.
const USUAL: u64 = 24 << 20;
/// Bytes that a run under a budget leaves free: code and stacks that are first touched during the run, the block of the
/// weights that is checked beyond a step's own, and the picture's file.
const RESERVE: u64 = 6 << 20;
/// What the system keeps of other files while a run goes on.
const MARGIN: u64 = 32 << 20;

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

/// A graph of a [`Model`] at a size: the program that gives its outputs, and those of the stages before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(usize);

/// The inputs of a program that are not values of an earlier stage, pinned in the arena.
pub(super) fn given<'a>(program: &Program<'a>) -> impl Iterator<Item = Port<'a>> + use<'a> {
    let pinned = program.pinned_bytes();
    program.inputs().filter(move |port| port.offset >= pinned)
}

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
        let mut steps = mapped.package().programs().flat_map(|p| p.steps());
        if !steps.all(|s| step::is_built_in(&s)) {
            return Err(RuntimeError::Precision { origin });
        }
        let verified = Verified::none(mapped.package().weight_blocks());
        Ok(Model {
            shared: Arc::new(Shared {
                mapped,
                origin,
                verified,
            }),
            kernels,
        })
    }

    /// The same model with the kernels of an instruction set.
    pub fn with_isa(self, isa: Isa) -> Result<Self, RuntimeError> {
        Ok(Model {
            kernels: Kernels::new(isa)?,
            ..self
        })
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// What the model was opened from, as error messages name it.
    pub fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// The addresses at which the package's file is mapped; `None` if it is a part of the program.
    pub(super) fn mapped_addresses(&self) -> Option<std::ops::Range<usize>> {
        self.shared.mapped.addresses()
    }

    /// The package: model card, tokenizer, scheduler, programs and weights.
    pub fn package(&self) -> Package<'_> {
        self.shared.mapped.package()
    }

    /// Every graph at every size, with the program that gives its outputs.
    pub fn programs(&self) -> impl Iterator<Item = (ProgramId, Program<'_>)> {
        let last = |(_, program): &(usize, Program<'_>)| {
            matches!(program.stage(), Stage::Whole | Stage::Step)
        };
        self.package()
            .programs()
            .enumerate()
            .filter(last)
            .map(|(index, program)| (ProgramId(index), program))
    }

    /// The program that gives a graph's outputs.
    ///
    /// # Panics
    /// When `id` is another model's and this one has fewer programs.
    pub fn program(&self, id: ProgramId) -> Program<'_> {
        self.package()
            .program(id.0)
            .expect("a program of this model")
    }

    /// A graph's programs in the order in which they run: those of the prompt's and the timestep's stage, if it has
    /// them, and [`Model::program`].
    pub fn stages(&self, id: ProgramId) -> impl Iterator<Item = Program<'_>> {
        let last = self.program(id);
        let before = move |program: &Program<'_>| {
            let size = |program: &Program<'_>| (program.graph(), program.height(), program.width());
            size(program) == size(&last)
                && matches!(
                    (last.stage(), program.stage()),
                    (Stage::Step, Stage::Prompt | Stage::Timestep)
                )
        };
        // The package has them in the order of the stages.
        self.package().programs().filter(before).chain([last])
    }

    /// What a graph is given: the inputs of its programs but for those that an earlier stage makes, each name once.
    pub fn inputs(&self, id: ProgramId) -> impl Iterator<Item = Port<'_>> {
        self.stages(id)
            .enumerate()
            .flat_map(move |(stage, program)| {
                let first = move |port: &Port<'_>| {
                    self.stages(id)
                        .take(stage)
                        .all(|earlier| given(&earlier).all(|other| other.name != port.name))
                };
                given(&program).filter(first)
            })
    }

    /// The picture sizes, height and width in pixels, that there are programs of a graph for. A graph that works for
    /// every size has 0 by 0.
    pub fn sizes(&self, graph: GraphKind) -> impl Iterator<Item = (u32, u32)> {
        let of_graph = self
            .programs()
            .filter(move |(_, program)| program.graph() == graph);
        of_graph.map(|(_, program)| (program.height(), program.width()))
    }

    /// The text encoder in each of its forms, with the clip skip of each: 1 for all its layers, N for its last N - 1 layers
    /// left out.
    pub fn text_encoders(&self) -> impl Iterator<Item = (u32, ProgramId)> {
        let encoders = self
            .programs()
            .filter(|(_, program)| program.graph() == GraphKind::TextEncoder);
        encoders.map(|(id, program)| (program.clip_skip(), id))
    }

    /// The program of a graph for pictures of a size in pixels. A text encoder's is that of all its layers.
    pub fn find(
        &self,
        graph: GraphKind,
        height: u32,
        width: u32,
    ) -> Result<ProgramId, RuntimeError> {
        let fits = |program: &Program<'_>| {
            program.graph() == graph
                && [(height, width), (0, 0)].contains(&(program.height(), program.width()))
        };
        self.programs()
            .find(|(_, program)| fits(program))
            .map(|(id, _)| id)
            .ok_or_else(|| {
                let mut available: Vec<_> = self
                    .sizes(graph)
                    .map(|(height, width)| (width, height))
                    .collect();
                available.dedup();
                match available.is_empty() {
                    true => RuntimeError::NoGraph { graph },
                    false => RuntimeError::NoProgram {
                        graph,
                        width,
                        height,
                        available,
                    },
                }
            })
    }

    /// The program of a graph that takes inputs of these names and shapes: all that the graph has, and no others.
    pub fn find_by_inputs(
        &self,
        graph: GraphKind,
        inputs: &[(&str, &[usize])],
    ) -> Result<ProgramId, RuntimeError> {
        let candidates = self
            .programs()
            .filter(|(_, program)| program.graph() == graph);
        let mut candidates: Vec<_> = candidates.map(|(id, _)| id).collect();
        let first = *candidates.first().ok_or(RuntimeError::NoGraph { graph })?;
        for (name, _) in inputs {
            if self.inputs(first).all(|port| port.name != *name) {
                return Err(ports::unknown(
                    graph,
                    ports::Direction::Input,
                    name,
                    self.inputs(first),
                ));
            }
        }
        if let Some(port) = self
            .inputs(first)
            .find(|port| inputs.iter().all(|(name, _)| *name != port.name))
        {
            return Err(RuntimeError::MissingTensor {
                graph,
                name: port.name.to_owned(),
            });
        }
        for (name, shape) in inputs {
            let variants = |id: ProgramId| {
                let port = self.inputs(id).find(|port| port.name == *name);
                port.into_iter()
                    .flat_map(move |port| ports::variants(port, self.max_chunks(id)))
            };
            let mut expected: Vec<Shape> = candidates
                .iter()
                .flat_map(|id| variants(*id))
                .map(|(_, port)| ports::shape(&port))
                .collect();
            candidates.retain(|id| variants(*id).any(|(_, port)| ports::fits(&port, shape)));
            if candidates.is_empty() {
                expected.dedup();
                let (name, found) = ((*name).to_owned(), Shape::from(*shape));
                return Err(RuntimeError::NoMatch {
                    graph,
                    name,
                    expected,
                    found,
                });
            }
        }
        Ok(candidates[0])
    }

    /// The most chunks of 77 tokens that a graph's context can have.
    pub fn max_chunks(&self, id: ProgramId) -> u32 {
        self.program(id).max_chunks()
    }

    /// Room for the statistics of a graph's norms; `None` if it has none, or is of several programs.
    pub fn norm_moments(&self, id: ProgramId) -> Option<NormMoments> {
        let program = self.program(id);
        (program.stage() == Stage::Whole)
            .then(|| NormMoments::of(&program))
            .flatten()
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
        programs
            .iter()
            .fold((0, 0), |(arena, scratch), (id, lanes)| {
                let most = self
                    .stages(*id)
                    .map(|program| program.thread_scratch_bytes())
                    .max();
                (
                    arena.max(self.arena_bytes(*id, *lanes)),
                    scratch.max(most.unwrap_or(0)),
                )
            })
    }

    /// Bytes of activations that so many lanes of a graph take, all its stages.
    pub fn arena_bytes(&self, id: ProgramId, lanes: usize) -> u64 {
        let shared = self.stages(id).map(|program| program.shared_bytes()).max();
        self.lane_bytes(id)
            .saturating_mul(lanes as u64)
            .saturating_add(shared.unwrap_or(0))
    }

    /// The most bytes of weights that one step of these programs reads, or all that lanes run in one turn.
    pub fn largest_layer(&self, programs: &[(ProgramId, usize)]) -> u64 {
        let stages = programs.iter().flat_map(|(id, _)| self.stages(*id));
        stages
            .map(|program| stream::largest_turn(&program))
            .max()
            .unwrap_or(0)
    }

    /// The least budget that running these programs, one after the other, keeps within: the arena and the largest layer of
    /// the one that needs most of both, the threads' scratch, and what the process has now.
    pub fn least_ram(&self, programs: &[(ProgramId, usize)], threads: NonZeroUsize) -> u64 {
        let (arena, layer) = self.tightest(programs);
        self.besides(programs, threads)
            .saturating_add(arena)
            .saturating_add(layer)
    }

    /// What a budget of `ram` bytes for the whole process leaves for the arena, as far as a program uses it, and the weights
    /// that are resident beside it.
    pub(super) fn room(
        &self,
        programs: &[(ProgramId, usize)],
        threads: NonZeroUsize,
        ram: u64,
    ) -> Result<u64, RuntimeError> {
        let (arena, layer) = self.tightest(programs);
        let besides = self.besides(programs, threads);
        let room = ram.checked_sub(besides);
        room.filter(|room| *room >= arena.saturating_add(layer))
            .ok_or(RuntimeError::Budget {
                ram,
                arena,
                layer,
                besides,
            })
    }

    /// Of the weights, the bytes from their beginning on that the system can keep of the file from one step to the next, beside a
    /// run with a budget of `ram` bytes. Where it cannot keep all, it would, left to itself, keep what was read last: by
    /// the time that is read again, it is gone, and what was read ahead has gone for it.
    pub(super) fn cached(
        &self,
        programs: &[(ProgramId, usize)],
        threads: NonZeroUsize,
        ram: u64,
    ) -> u64 {
        let weights = self.package().weights().len() as u64;
        let Some(available) = available_bytes() else {
            return weights;
        };
        let (arena, _) = self.tightest(programs);
        let own = self.besides(programs, threads).saturating_add(arena);
        kept_of_file(weights, available, own, ram)
    }

    /// Has the system forget what it has of a part of the file's weights.
    pub(super) fn forget(&self, (begin, end): (u64, u64)) {
        if let Some((file, offset)) = self.shared.mapped.place(self.package().weights()) {
            pages::forget(file, offset + begin, end - begin);
        }
    }

    /// Resident bytes of the arena, and the weights of the largest layer, of the program that takes most of both.
    fn tightest(&self, programs: &[(ProgramId, usize)]) -> (u64, u64) {
        let whole = arena::whole_pages(self.needs(programs).0);
        let each = programs.iter().map(|(id, lanes)| {
            let arena = self.arena_bytes(*id, *lanes);
            let layer = self.largest_layer(&[(*id, *lanes)]);
            (arena::resident(arena, whole), layer)
        });
        each.max_by_key(|(arena, layer)| arena.saturating_add(*layer))
            .unwrap_or((0, 0))
    }

    /// The threads' scratch, and what the process has now.
    fn besides(&self, programs: &[(ProgramId, usize)], threads: NonZeroUsize) -> u64 {
        let program = resident_bytes().unwrap_or(USUAL) + RESERVE;
        self.memory(programs, threads)
            .scratch_bytes
            .saturating_add(program)
    }

    /// Bytes from one lane of a graph to the next, the same in all its stages: what is pinned stays where it is. What lanes
    /// share comes after the last.
    pub(super) fn lane_bytes(&self, id: ProgramId) -> u64 {
        self.stages(id)
            .map(|program| program.lane_bytes().next_multiple_of(64))
            .max()
            .unwrap_or(0)
    }

    /// Checks every checksum of the package.
    pub fn verify(&self) -> Result<(), RuntimeError> {
        let error = |source: PackageError| RuntimeError::Package {
            origin: self.origin().to_owned(),
            source: source.into(),
        };
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
        RuntimeError::Weights {
            origin: self.shared.origin.clone(),
            source,
            step: step.to_owned(),
        }
    }
}

/// Of a file of `weights` bytes, what the system can keep where `available` bytes are there for all, a run has `own` besides
/// weights, and may take `ram` with them.
fn kept_of_file(weights: u64, available: u64, own: u64, ram: u64) -> u64 {
    match available.saturating_sub(own) >= weights.saturating_add(MARGIN) {
        true => weights,
        false => (available.saturating_sub(ram) / 4 * 3).min(weights),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_file_is_kept_or_what_there_is_room_for() {
        let kept = |available, ram| {
            let mebibytes = [1000, available, 100, ram].map(|mebibytes: u64| mebibytes << 20);
            let [weights, available, own, ram] = mebibytes;
            kept_of_file(weights, available, own, ram) >> 20
        };
        // Whatever the budget is, while there is room beside the run.
        assert_eq!(
            [kept(1132, 256), kept(1132, 1132), kept(4096, 256)],
            [1000; 3]
        );
        assert_eq!(kept(1131, 256), 656);
        assert_eq!(kept(300, 256), 33);
        assert_eq!([kept(256, 256), kept(200, 256)], [0; 2]);
    }
}
