//! Plaintext in Python's hands: memory that is wiped when the last one who has it lets it go.
#![allow(unsafe_code, reason = "buffers are handed to Python as pointers")]

use std::ffi::c_int;

use modelseal::Error;
use modelseal::error::Code;
use modelseal::memory::{self, Memory};
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyOverflowError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroize;

use crate::errors::exception;

/// A part of a model. NumPy, PyTorch and `memoryview` use it where it is; it goes when the last of them has gone.
#[pyclass(frozen, module = "modelseal")]
pub(crate) struct Buffer {
    /// Nothing here looks at the bytes once Python can: whoever has a view may write.
    memory: Memory,
}

impl Buffer {
    pub(crate) fn new(memory: Memory) -> Self {
        Self { memory }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.memory.len()
    }

    /// # Safety
    /// Python calls it, with a view that is to be filled.
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes: &[u8] = &slf.get().memory;
        let len = isize::try_from(bytes.len()).map_err(|_| PyBufferError::new_err("too long"))?;
        let start = bytes.as_ptr().cast_mut().cast();
        // SAFETY: the memory is `slf`'s, which is frozen, so it neither moves nor changes its length; the view holds a
        // reference to `slf` until it is released. Nothing in Rust reads or writes the bytes while there is a view.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// The bytes of a new object of the class `class`, which is `bytes` or a class of Python's derived from it.
pub(crate) struct Fresh<'py> {
    object: Bound<'py, PyBytes>,
}

impl<'py> Fresh<'py> {
    /// Zeros. `make` makes a new object of so many bytes, as `bytes.__new__(class, n)` does.
    pub(crate) fn new(make: &Bound<'py, PyAny>, len: u64) -> PyResult<Self> {
        let py = make.py();
        memory::require(len).map_err(|error| exception(py, &error.with_hint(MEMORY_HINT)))?;
        let made = make.call1((len,)).map_err(|raised| {
            let none =
                raised.is_instance_of::<PyMemoryError>(py) || raised.is_instance_of::<PyOverflowError>(py);
            if none { exception(py, &no_memory(len)) } else { raised }
        });
        let object = made?.cast_into::<PyBytes>()?;
        // SAFETY: the object is alive.
        let references = unsafe { ffi::Py_REFCNT(object.as_ptr()) };
        let shared = references != 1 || object.is_exact_instance_of::<PyBytes>();
        if shared || object.as_bytes().len() as u64 != len {
            return Err(PyTypeError::new_err("not a new object of that length"));
        }
        Ok(Self { object })
    }

    /// Its bytes, which nobody else can see yet.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.object.as_bytes().len();
        // SAFETY: CPython lets the bytes of a new object be filled (PyBytes_AsString), and this one is new: its one
        // reference is ours and mutably borrowed, and it is of a class of its own, none of whose objects are shared.
        unsafe { std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(self.object.as_ptr()).cast(), len) }
    }

    pub(crate) fn finish(self) -> Bound<'py, PyBytes> {
        self.object
    }
}

const MEMORY_HINT: &str =
    "raise the limit, or use a larger machine; of an opened model, read_at reads a part";

fn no_memory(len: u64) -> Error {
    let what = format!("the model needs {len} bytes of memory, and Python got none");
    Error::new(Code::Io, what, MEMORY_HINT)
}

/// Overwrites bytes that nobody will look at any more: for `Plaintext.__del__` alone.
#[pyfunction]
pub(crate) fn wipe(object: &Bound<'_, PyBytes>) -> PyResult<()> {
    if object.is_exact_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err("bytes are shared"));
    }
    let len = object.as_bytes().len();
    // SAFETY: called when the last reference has gone, so that no view is left either: a view holds a reference. The GIL
    // is held meanwhile.
    unsafe { std::slice::from_raw_parts_mut(ffi::PyBytes_AsString(object.as_ptr()).cast::<u8>(), len) }
        .zeroize();
    Ok(())
}
