//! The tensors of one module of a LoRA, put together to changes of its weight and its bias.

use std::collections::BTreeMap;

use super::LoraError;
use super::delta::{Delta, Matrix, Product};
use super::names::Role;
use crate::graph::Weight;

/// The largest rank. The largest weights of the models have 1280 rows.
const MOST_RANK: usize = 4096;

/// A tensor of the file.
#[derive(Clone, Copy)]
pub(super) struct Named<'t> {
    pub name: &'t str,
    pub weight: &'t Weight,
}

/// One change of a weight or of a bias.
pub(super) struct Change<'t> {
    pub delta: Delta,
    /// What it is scaled by, if that follows from an alpha.
    pub rank: Option<usize>,
    /// The tensor that errors name.
    pub tensor: &'t str,
}

/// What a module's tensors do.
#[derive(Default)]
pub(super) struct Changes<'t> {
    pub weight: Vec<Change<'t>>,
    pub bias: Vec<Change<'t>>,
}

/// A module's tensors by role.
#[derive(Default)]
pub(super) struct Module<'t>(BTreeMap<Role, Named<'t>>);

impl<'t> Module<'t> {
    /// Adds a tensor; an error if the role is taken.
    pub fn insert(&mut self, role: Role, tensor: Named<'t>) -> Result<(), LoraError> {
        match self.0.insert(role, tensor) {
            Some(first) => Err(LoraError::Twice(first.name.into(), tensor.name.into())),
            None => Ok(()),
        }
    }

    pub fn tensors(&self) -> impl Iterator<Item = Named<'t>> {
        self.0.values().copied()
    }

    /// The value of a tensor of one element.
    pub fn number(&self, role: Role) -> Result<Option<f64>, LoraError> {
        let Some(tensor) = self.0.get(&role) else {
            return Ok(None);
        };
        match tensor.weight.scalar() {
            Some(value) => Ok(Some(value.into())),
            None => Err(LoraError::Number(
                tensor.name.into(),
                tensor.weight.shape().to_vec(),
            )),
        }
    }

    /// All that the tensors change. Shapes fit each other; whether they fit the model is not known here.
    pub fn changes(&self) -> Result<Changes<'t>, LoraError> {
        let mut changes = Changes::default();
        self.low_rank(&mut changes)?;
        self.hadamard(&mut changes)?;
        self.kronecker(&mut changes)?;
        for (role, list) in [
            (Role::Diff, &mut changes.weight),
            (Role::DiffBias, &mut changes.bias),
        ] {
            list.extend(self.0.get(&role).map(|tensor| Change {
                delta: Delta::Matrix(Matrix::Whole(tensor.weight.clone())),
                rank: None,
                tensor: tensor.name,
            }));
        }
        Ok(changes)
    }

    fn low_rank(&self, changes: &mut Changes<'t>) -> Result<(), LoraError> {
        let factors = [Role::Up, Role::Down];
        if !self.has_any(&[Role::Up, Role::Down, Role::Mid, Role::UpBias]) {
            return Ok(());
        }
        let (up, down) = self.pair(factors)?;
        let core = self.0.get(&Role::Mid).copied();
        let (product, rank) = product(up, false, core, down)?;
        changes.weight.push(Change {
            delta: Delta::Matrix(Matrix::Product(product)),
            rank: Some(rank),
            tensor: down.name,
        });
        changes
            .bias
            .extend(self.0.get(&Role::UpBias).map(|bias| Change {
                delta: Delta::Matrix(Matrix::Whole(bias.weight.clone())),
                rank: Some(rank),
                tensor: bias.name,
            }));
        Ok(())
    }

    fn hadamard(&self, changes: &mut Changes<'t>) -> Result<(), LoraError> {
        let roles = |side| [Role::HadaA(side), Role::HadaB(side)];
        let [a1, b1, a2, b2] = [
            Role::HadaA(1),
            Role::HadaB(1),
            Role::HadaA(2),
            Role::HadaB(2),
        ];
        let [t1, t2] = [Role::HadaCore(1), Role::HadaCore(2)];
        if !self.has_any(&[a1, b1, a2, b2, t1, t2]) {
            return Ok(());
        }
        let core = |side| self.0.get(&Role::HadaCore(side)).copied();
        if core(1).is_some() != core(2).is_some() {
            self.pair([t1, t2])?;
        }
        let side = |side| -> Result<_, LoraError> {
            let (a, b) = self.pair(roles(side))?;
            let (product, rank) = product(a, core(side).is_some(), core(side), b)?;
            Ok((Matrix::Product(product), rank, a.name))
        };
        // One of two halves that are missing altogether is named by the other.
        if !self.has_any(&roles(1)) || !self.has_any(&roles(2)) {
            self.pair([a1, a2])?;
        }
        let (first, rank, tensor) = side(1)?;
        let (second, _, other) = side(2)?;
        let shapes = [&first, &second].map(|m| Delta::Matrix(m.clone()).shape());
        if shapes[0] != shapes[1] {
            let [first, second] = shapes;
            return Err(LoraError::Factors {
                first: tensor.into(),
                shape: first,
                second: other.into(),
                other: second,
            });
        }
        changes.weight.push(Change {
            delta: Delta::Hadamard(first, second),
            rank: Some(rank),
            tensor,
        });
        Ok(())
    }

    fn kronecker(&self, changes: &mut Changes<'t>) -> Result<(), LoraError> {
        let parts = |side| [Role::Kron(side), Role::KronA(side), Role::KronB(side)];
        if !self.has_any(&parts(1)) && !self.has_any(&parts(2)) && !self.has_any(&[Role::KronCore])
        {
            return Ok(());
        }
        if !self.has_any(&parts(1)) || !self.has_any(&parts(2)) {
            self.pair([Role::Kron(1), Role::Kron(2)])?;
        }
        let side = |side| -> Result<_, LoraError> {
            if let Some(whole) = self.0.get(&Role::Kron(side)) {
                let dims = whole.weight.shape().len();
                if dims < 2 || whole.weight.is_empty() {
                    return Err(LoraError::Factor(
                        whole.name.into(),
                        whole.weight.shape().to_vec(),
                    ));
                }
                return Ok((Matrix::Whole(whole.weight.clone()), None, whole.name));
            }
            let (a, b) = self.pair([Role::KronA(side), Role::KronB(side)])?;
            let core = (side == 2)
                .then(|| self.0.get(&Role::KronCore).copied())
                .flatten();
            let (product, rank) = product(a, core.is_some(), core, b)?;
            Ok((Matrix::Product(product), Some(rank), a.name))
        };
        let (first, rank, tensor) = side(1)?;
        let (second, second_rank, _) = side(2)?;
        changes.weight.push(Change {
            delta: Delta::Kronecker(first, second),
            // Where both sides are whole there is no rank, and the alpha means nothing.
            rank: second_rank.or(rank),
            tensor,
        });
        Ok(())
    }

    fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.0.contains_key(role))
    }

    /// Two tensors that need each other.
    fn pair(&self, roles: [Role; 2]) -> Result<(Named<'t>, Named<'t>), LoraError> {
        match roles.map(|role| self.0.get(&role).copied()) {
            [Some(first), Some(second)] => Ok((first, second)),
            found => {
                let missing = usize::from(found[0].is_some());
                // At least one tensor brought us here.
                let present = found.into_iter().flatten().chain(self.tensors()).next();
                Err(LoraError::Half {
                    tensor: present.map_or(String::new(), |t| t.name.into()),
                    missing: roles[missing].what(),
                })
            }
        }
    }
}

/// The product of two factors, with a core or without, and its rank.
fn product(
    left: Named<'_>,
    transposed: bool,
    core: Option<Named<'_>>,
    right: Named<'_>,
) -> Result<(Product, usize), LoraError> {
    let empty = |t: &Named<'_>| t.weight.shape().len() < 2 || t.weight.is_empty();
    if let Some(wrong) = [left, right]
        .into_iter()
        .chain(core)
        .find(|tensor| empty(tensor))
    {
        return Err(LoraError::Factor(
            wrong.name.into(),
            wrong.weight.shape().to_vec(),
        ));
    }
    let rest = |shape: &[usize]| shape.iter().skip(1).product::<usize>();
    let shape = left.weight.shape();
    let rank = if transposed { shape[0] } else { rest(shape) };
    // Each factor's sum is over what the next one's rows are.
    let mut before = (left, rank);
    if let Some(core) = core {
        let shape = core.weight.shape();
        if shape.len() != 4 {
            return Err(LoraError::Factor(core.name.into(), shape.to_vec()));
        }
        joins(before, core)?;
        // The taps are the core's, so the right factor has none.
        let shape = right.weight.shape();
        if rest(shape) != shape[1] {
            return Err(LoraError::Factor(right.name.into(), shape.to_vec()));
        }
        before = (core, core.weight.shape()[1]);
    }
    joins(before, right)?;
    if rank > MOST_RANK {
        return Err(LoraError::Factor(
            right.name.into(),
            right.weight.shape().to_vec(),
        ));
    }
    let product = Product {
        left: left.weight.clone(),
        transposed,
        core: core.map(|core| core.weight.clone()),
        right: right.weight.clone(),
    };
    Ok((product, rank))
}

fn joins((first, columns): (Named<'_>, usize), second: Named<'_>) -> Result<(), LoraError> {
    if second.weight.shape()[0] == columns {
        return Ok(());
    }
    Err(LoraError::Factors {
        first: first.name.into(),
        shape: first.weight.shape().to_vec(),
        second: second.name.into(),
        other: second.weight.shape().to_vec(),
    })
}
