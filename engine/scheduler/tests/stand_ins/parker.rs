//! Stands in for `crossbeam_utils::sync::Parker`, whose token makes an unpark before a park count. A
//! thread that nobody wakes is a deadlock, which loom reports.

use loom::sync::{Condvar, Mutex};

pub(crate) struct Parker {
    token: Mutex<bool>,
    unparked: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Parker {
        Parker {
            token: Mutex::new(false),
            unparked: Condvar::new(),
        }
    }

    pub(crate) fn park(&self) {
        let mut token = self.token.lock().unwrap();
        while !std::mem::take(&mut *token) {
            token = self.unparked.wait(token).unwrap();
        }
    }

    pub(crate) fn unpark(&self) {
        *self.token.lock().unwrap() = true;
        self.unparked.notify_one();
    }
}
