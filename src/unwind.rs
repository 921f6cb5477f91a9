//! Stands in for libgcc's unwinder, which the standard library refers to. With
//! panic=abort nothing unwinds, and without its tables (`proto/build.rs`) there
//! is no backtrace to take: not to load the library saves 100 KiB of memory. A
//! panic prints its message all the same.
//!
//! The names are the executable's own: a library that is loaded into the process
//! (a module of the name service, a preloaded one) may be C++, and catch what it
//! throws by libgcc's unwinder.

use std::arch::global_asm;

/// Ends the process should a library unwind after all.
macro_rules! never_called {
    ($($name:ident)*) => {
        $(
            // SAFETY: nothing else in the executable defines these names, and
            // whatever arguments it is called with, it does not return.
            #[unsafe(no_mangle)]
            extern "C" fn $name() -> ! {
                std::process::abort()
            }
            global_asm!(concat!(".hidden ", stringify!($name)));
        )*
    };
}

never_called! {
    _Unwind_GetDataRelBase
    _Unwind_GetIP
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_Resume
    _Unwind_SetGR
    _Unwind_SetIP
}

/// `_URC_END_OF_STACK` of the Itanium C++ ABI.
const END_OF_STACK: i32 = 5;

/// Finds no frame.
// SAFETY: nothing else in the executable defines the name; no argument is used.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace() -> i32 {
    END_OF_STACK
}
global_asm!(".hidden _Unwind_Backtrace");
