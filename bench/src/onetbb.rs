//! oneTBB among those who fork and join: a library in C++, compiled where there is a compiler and oneTBB.
//!
//! A closure goes there and back as a function and a pointer: a nanosecond or two of what is a hundred.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use crate::case::{Task, Trouble};
use crate::forks::Forks;
use crate::outside;

/// What runs a closure that it is handed; a panic in it ends the process.
type Body = unsafe extern "C" fn(*mut c_void);

/// What `bench/cpp/onetbb.cpp` offers, as it is declared there.
#[derive(Debug, Clone, Copy)]
struct Library {
    start: unsafe extern "C" fn(usize) -> *mut c_void,
    enter: unsafe extern "C" fn(*mut c_void, Body, *mut c_void),
    join: unsafe extern "C" fn(Body, *mut c_void, Body, *mut c_void),
}

static LIBRARY: OnceLock<Library> = OnceLock::new();

/// Threads of oneTBB, which stay until the process ends.
#[derive(Debug)]
pub(crate) struct OneTbb(*mut c_void);

// SAFETY: an arena of oneTBB may be entered by any thread.
unsafe impl Sync for OneTbb {}

impl OneTbb {
    /// To be called before all else.
    pub(crate) fn load(task: &Task) -> Result<(), Trouble> {
        let path = outside::onetbb(task)?.into_os_string().into_vec();
        let path = CString::new(path).map_err(|error| Trouble::Failed(error.to_string()))?;
        // SAFETY: a path that is terminated; the library has no constructors but oneTBB's.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err(Trouble::Failed(format!("oneTBB: {}", loader_error())));
        }
        // SAFETY: the types are those of the declarations there.
        let start = unsafe { function(library, c"onetbb_start") }?;
        // SAFETY: as above.
        let enter = unsafe { function(library, c"onetbb_enter") }?;
        // SAFETY: as above.
        let join = unsafe { function(library, c"onetbb_join") }?;
        let library = Library { start, enter, join };
        LIBRARY.get_or_init(|| library);
        Ok(())
    }
}

fn library() -> Library {
    *LIBRARY.get().expect("it is loaded before all else")
}

/// A function of an open library, which stays open.
///
/// # Safety
///
/// `F` is the type of a pointer to the function that goes by the name there.
unsafe fn function<F: Copy>(library: *mut c_void, name: &CStr) -> Result<F, Trouble> {
    // SAFETY: the library is open, and the name terminated.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    if symbol.is_null() {
        return Err(Trouble::Failed(format!("oneTBB: {}", loader_error())));
    }
    // SAFETY: as demanded, and as large.
    Ok(unsafe { std::mem::transmute_copy(&symbol) })
}

fn loader_error() -> String {
    // SAFETY: it has no conditions.
    let error = unsafe { libc::dlerror() };
    if error.is_null() {
        return "no reason given".into();
    }
    // SAFETY: a string that stays until the next call of this thread.
    let error = unsafe { CStr::from_ptr(error) };
    error.to_string_lossy().into_owned()
}

/// A closure that has not run, or what it gave.
enum Call<F, R> {
    Due(F),
    Done(R),
    Running,
}

impl<F: FnOnce() -> R, R> Call<F, R> {
    /// What oneTBB calls, with a pointer to a call.
    ///
    /// # Safety
    ///
    /// It points to a `Call<F, R>` that nobody else uses meanwhile.
    unsafe extern "C" fn body(call: *mut c_void) {
        // SAFETY: as demanded.
        let call = unsafe { &mut *call.cast::<Call<F, R>>() };
        if let Call::Due(closure) = std::mem::replace(call, Call::Running) {
            *call = Call::Done(closure());
        }
    }

    fn data(&mut self) -> *mut c_void {
        (&raw mut *self).cast()
    }

    fn result(self) -> R {
        match self {
            Call::Done(result) => result,
            Call::Due(_) | Call::Running => panic!("oneTBB came back before its work was done"),
        }
    }
}

impl Forks for OneTbb {
    type Here<'h> = ();

    /// Whoever enters is one of the threads.
    fn start(threads: usize) -> OneTbb {
        // SAFETY: it takes any number.
        OneTbb(unsafe { (library().start)(threads) })
    }

    fn enter<R: Send>(&self, body: impl FnOnce(&mut ()) -> R + Send) -> R {
        fn enter<F: FnOnce() -> R, R>(threads: *mut c_void, body: F) -> R {
            let mut call = Call::Due(body);
            // SAFETY: the threads are its own, and the call lives until it comes back.
            unsafe { (library().enter)(threads, Call::<F, R>::body, call.data()) };
            call.result()
        }
        enter(self.0, || body(&mut ()))
    }

    #[inline]
    fn join<A: Send, B: Send>(
        _: &mut (),
        now: impl FnOnce(&mut ()) -> A + Send,
        later: impl FnOnce(&mut ()) -> B + Send,
    ) -> (A, B) {
        #[inline]
        fn join<F: FnOnce() -> A, A, G: FnOnce() -> B, B>(now: F, later: G) -> (A, B) {
            let (mut now, mut later) = (Call::Due(now), Call::Due(later));
            // SAFETY: both live until it comes back, and each is run by one thread.
            unsafe {
                (library().join)(
                    Call::<F, A>::body,
                    now.data(),
                    Call::<G, B>::body,
                    later.data(),
                );
            }
            (now.result(), later.result())
        }
        join(|| now(&mut ()), || later(&mut ()))
    }
}
