//! A request to stop, as seen by who works.

use std::fmt;
use std::sync::Arc;

/// Asked now and then, between two tensors, whether to stop. The default never does.
#[derive(Clone, Default)]
pub struct Cancel(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Cancel {
    /// Stops when `asked` gives true.
    pub fn new(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Cancel(Some(Arc::new(asked)))
    }

    /// Whether anyone has asked to stop.
    pub fn asked(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked())
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel({})", self.asked())
    }
}
