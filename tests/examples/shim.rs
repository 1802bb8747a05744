//! A PKCS#11 library in front of a real one, to which it forwards every call, but for those that go wrong as the file
//! `SHIM_FAULTS` says, line by line:
//!
//! ```text
//! C_Sign hang          every call waits until the file says something else
//! C_Sign hang 1        the first call only
//! C_Sign 0x30          every call returns this code
//! C_Sign 0x30 2        the first two
//! C_Sign 0x30 started  every call until the library has been initialised once more
//! C_OpenSession 0xb1 after 3     every call but the first three
//! ```
//!
//! `SHIM_MODULE` is the real library; the file `SHIM_LOG` gets the name of each call.

#![allow(unsafe_code, non_snake_case, reason = "a PKCS#11 library is C")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use cryptoki_sys::*;

struct Real {
    list: CK_FUNCTION_LIST,
    _library: libloading::Library,
}

// SAFETY: the list is made of pointers to functions of a library that stays loaded, and is only read.
unsafe impl Sync for Real {}
// SAFETY: as above.
unsafe impl Send for Real {}

fn real() -> &'static CK_FUNCTION_LIST {
    static REAL: OnceLock<Real> = OnceLock::new();
    let load = || {
        let path = std::env::var_os("SHIM_MODULE").expect("SHIM_MODULE");
        // SAFETY: a PKCS#11 library of the system, which has the function of this type by PKCS#11.
        unsafe {
            let library = libloading::Library::new(path).expect("the real library");
            let get: libloading::Symbol<'_, unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV> =
                library.get(b"C_GetFunctionList").expect("C_GetFunctionList");
            let mut list = std::ptr::null_mut();
            assert_eq!(get(&mut list), CKR_OK);
            Real { list: *list, _library: library }
        }
    };
    &REAL.get_or_init(load).list
}

/// How often each function was called, and how often the library was started.
static CALLS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// What the call returns instead of the real library's answer.
fn fault(function: &'static str) -> Option<CK_RV> {
    let (calls, starts) = {
        let mut calls = CALLS.lock().unwrap();
        let count = calls.entry(function).or_default();
        *count += 1;
        (*count, calls.get("C_Initialize").copied().unwrap_or(0))
    };
    if let Some(path) = std::env::var_os("SHIM_LOG") {
        let mut log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(log, "{function}").unwrap();
    }
    let words = wanted(function)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // Calls are counted from the moment that the file is written anew.
    let applies = match words[1..] {
        [] => true,
        ["started"] => starts < 2,
        ["after", n] => since(function, calls) > n.parse().unwrap(),
        [n] => since(function, calls) <= n.parse().unwrap(),
        _ => panic!("{words:?}?"),
    };
    match words[0] {
        _ if !applies => None,
        "hang" => {
            while wanted(function).is_some_and(|words| words[0] == "hang") {
                std::thread::sleep(Duration::from_millis(20));
            }
            None
        }
        code => Some(CK_RV::from_str_radix(code.trim_start_matches("0x"), 16).unwrap()),
    }
}

fn wanted(function: &str) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(std::env::var_os("SHIM_FAULTS")?).ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let mut lines = lines.filter(|(name, _)| *name == function);
    lines.next().map(|(_, words)| words.split(' ').map(str::to_owned).collect())
}

/// How many calls there were since the file has had its text.
fn since(function: &'static str, calls: u64) -> u64 {
    static BASE: Mutex<BTreeMap<(&str, std::time::SystemTime), u64>> = Mutex::new(BTreeMap::new());
    let path = std::env::var_os("SHIM_FAULTS").unwrap();
    let written = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let written = written.unwrap_or(std::time::UNIX_EPOCH);
    calls + 1 - *BASE.lock().unwrap().entry((function, written)).or_insert(calls)
}

macro_rules! forward {
    ($($function:ident($($argument:ident: $type:ty),*) $(ends($session:ident, $from:ident, $len:ident))?;)*) => {
        $(unsafe extern "C" fn $function($($argument: $type),*) -> CK_RV {
            match fault(stringify!($function)) {
                Some(code) => {
                    // As with any error, the operation has ended, too.
                    $({
                        let mut room = [0; 4096];
                        let mut len = 4096;
                        // SAFETY: the caller's arguments, but with our room for the result.
                        unsafe { (real().$function.unwrap())($session, $from, $len, room.as_mut_ptr(), &mut len) };
                    })?
                    code
                }
                // SAFETY: the caller's own arguments, to the function that they are for.
                None => unsafe { (real().$function.unwrap())($($argument),*) },
            }
        })*

        fn list() -> CK_FUNCTION_LIST {
            CK_FUNCTION_LIST { $($function: Some($function),)* ..*real() }
        }
    };
}

forward! {
    C_Initialize(arguments: CK_VOID_PTR);
    C_Finalize(reserved: CK_VOID_PTR);
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, data: CK_VOID_PTR, notify: CK_NOTIFY, session: CK_SESSION_HANDLE_PTR);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: CK_UTF8CHAR_PTR, len: CK_ULONG);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, len: CK_ULONG);
    C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Encrypt(session: CK_SESSION_HANDLE, from: CK_BYTE_PTR, len: CK_ULONG, to: CK_BYTE_PTR, room: CK_ULONG_PTR) ends(session, from, len);
    C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Decrypt(session: CK_SESSION_HANDLE, from: CK_BYTE_PTR, len: CK_ULONG, to: CK_BYTE_PTR, room: CK_ULONG_PTR) ends(session, from, len);
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Sign(session: CK_SESSION_HANDLE, from: CK_BYTE_PTR, len: CK_ULONG, to: CK_BYTE_PTR, room: CK_ULONG_PTR) ends(session, from, len);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, public: CK_ATTRIBUTE_PTR, public_len: CK_ULONG, private: CK_ATTRIBUTE_PTR, private_len: CK_ULONG, public_key: CK_OBJECT_HANDLE_PTR, private_key: CK_OBJECT_HANDLE_PTR);
    C_GenerateKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, template: CK_ATTRIBUTE_PTR, len: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
}

/// PKCS#11's only entry.
///
/// # Safety
/// `list` points to a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list_out: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    struct List(CK_FUNCTION_LIST);
    // SAFETY: pointers to functions, which are only read.
    unsafe impl Sync for List {}
    // SAFETY: as above.
    unsafe impl Send for List {}
    static LIST: OnceLock<List> = OnceLock::new();
    let kept = &LIST.get_or_init(|| List(list())).0;
    // SAFETY: by the contract above.
    unsafe { *list_out = std::ptr::from_ref(kept).cast_mut() };
    CKR_OK
}
