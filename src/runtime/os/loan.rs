//! Lending a borrowed closure to threads that outlive it.

use std::mem;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{cell::UnsafeCell, hint, thread};

/// What is lent: called with the borrowing thread's number.
pub(crate) type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// The loan is being opened or closed; nobody may borrow.
const CLOSING: usize = 1 << (usize::BITS - 1);
/// The loan is open. The bits below count the borrowers.
const OPEN: usize = 1 << (usize::BITS - 2);

/// A place where one thread leaves a closure for others to call, for as long as one of its own calls lasts.
///
/// [`Loan::lend`] returns only when every [`Borrowed`] is gone, so the closure may borrow from the lender's stack.
pub(crate) struct Loan {
    state: AtomicUsize,
    work: UnsafeCell<Option<*const Work<'static>>>,
}

// SAFETY: `work` is written only between CLOSING being set from 0 and OPEN being stored, when no borrower can exist,
// and read only by a borrower that has counted itself while OPEN was set. What it points to is `Sync`.
unsafe impl Sync for Loan {}
// SAFETY: as for `Sync`; nothing in it belongs to the thread that made it.
unsafe impl Send for Loan {}

impl Loan {
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
        }
    }

    /// Calls `during` while `work` may be borrowed, then waits until the last borrower has let go, also when `during`
    /// panics.
    ///
    /// # Panics
    /// When something is lent here already.
    pub(crate) fn lend<R>(&self, work: &Work<'_>, during: impl FnOnce() -> R) -> R {
        let opened = self
            .state
            .compare_exchange(0, CLOSING, Ordering::Acquire, Ordering::Relaxed);
        assert!(opened.is_ok(), "a loan is lent once at a time");
        // SAFETY: only the lifetime changes. `Recall` below keeps this function from returning or unwinding while a
        // `Borrowed` exists, and no `Borrowed` is made after it has run.
        let work =
            unsafe { mem::transmute::<*const Work<'_>, *const Work<'static>>(ptr::from_ref(work)) };
        // SAFETY: CLOSING was set from 0, so there is no borrower and no other lender.
        unsafe { *self.work.get() = Some(work) };
        self.state.store(OPEN, Ordering::Release);
        let _recall = Recall(self);
        during()
    }

    /// The lent closure, if there is one.
    pub(crate) fn borrow(&self) -> Option<Borrowed<'_>> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & OPEN == 0 {
                return None;
            }
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    // SAFETY: this thread is counted while OPEN is set, so the lender has written `work` and will not
                    // touch it before the count is taken back.
                    let work = unsafe { *self.work.get() };
                    return work.map(|work| Borrowed { loan: self, work });
                }
                Err(found) => state = found,
            }
        }
    }
}

/// Ends a loan when dropped.
struct Recall<'l>(&'l Loan);

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        // OPEN goes and CLOSING comes in one step: borrowers may leave, none may come, and no lender may start.
        let mut state = self.0.state.fetch_add(CLOSING - OPEN, Ordering::AcqRel) + (CLOSING - OPEN);
        let mut turns = 0_u32;
        while state != CLOSING {
            turns += 1;
            if turns < 1000 {
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
            state = self.0.state.load(Ordering::Acquire);
        }
        self.0.state.store(0, Ordering::Release);
    }
}

/// A closure on loan.
pub(crate) struct Borrowed<'l> {
    loan: &'l Loan,
    work: *const Work<'static>,
}

impl<'l> Deref for Borrowed<'l> {
    type Target = Work<'l>;

    fn deref(&self) -> &Self::Target {
        // SAFETY: the lender waits until this borrower is uncounted, which only dropping `self` does.
        unsafe { &*self.work }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.loan.state.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{self, AssertUnwindSafe};
    use std::sync::atomic::AtomicBool;

    #[test]
    fn nothing_is_borrowed_outside_a_loan() {
        let loan = Loan::new();
        assert!(loan.borrow().is_none());
        let last = AtomicUsize::new(0);
        loan.lend(&|n| last.store(n, Ordering::SeqCst), || {
            loan.borrow().expect("open")(4)
        });
        assert_eq!(last.into_inner(), 4);
        assert!(loan.borrow().is_none());
    }

    #[test]
    fn the_lender_waits_for_borrowers_even_when_it_panics() {
        let loan = Loan::new();
        let (borrowed, finished) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let work = loop {
                    if let Some(work) = loan.borrow() {
                        break work;
                    }
                    thread::yield_now();
                };
                borrowed.store(true, Ordering::SeqCst);
                thread::sleep(std::time::Duration::from_millis(20));
                finished.store(true, Ordering::SeqCst);
                work(0);
            });
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                loan.lend(&|_| (), || {
                    while !borrowed.load(Ordering::SeqCst) {
                        thread::yield_now();
                    }
                    panic!("the lender fails");
                })
            }));
            assert!(result.is_err());
            assert!(finished.load(Ordering::SeqCst));
        });
        assert!(loan.borrow().is_none());
    }
}
