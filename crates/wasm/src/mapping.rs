//! Compiled code, mapped from the sealed file of a generation.
//!
//! The compile helper writes the code of all modules into the bundle, each at the start of a page, and seals it. Every
//! worker maps the same pages, so the code of a module is in memory once per host.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::SealFlags,
    mm::{MapFlags, MprotectFlags, ProtFlags},
};
use wasmtime::{CustomCodeMemory, Engine, component::Component};

/// Alignment of code inside a bundle, bytes. A multiple of every page size that Linux has on the machines we run on.
pub const CODE_ALIGNMENT: u64 = 65_536;

/// Why code cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[error("mapping the code of {module}: {reason}")]
pub struct MappingError {
    /// Whose code.
    pub module: String,
    /// What is wrong.
    pub reason: String,
}

/// A file that nobody can change any more.
#[derive(Debug, Clone)]
pub struct SealedFile {
    file: Arc<File>,
    bytes: u64,
}

impl SealedFile {
    /// Takes a descriptor of a memory file that is sealed against writing, growing and shrinking.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn new(descriptor: BorrowedFd<'_>) -> Result<Self, MappingError> {
        let failed = |reason: String| MappingError { module: "a generation".to_owned(), reason };
        let seals = rustix::fs::fcntl_get_seals(descriptor).map_err(|error| failed(error.to_string()))?;
        if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW) {
            return Err(failed("found a file that can be changed, expected a sealed memory file".to_owned()));
        }
        let file = File::from(descriptor.try_clone_to_owned().map_err(|error| failed(error.to_string()))?);
        let bytes = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        Ok(Self { file: Arc::new(file), bytes })
    }
}

/// What is mapped: first byte of each mapping and its length. A mapping goes when the engine lets go of the code in it.
static MAPPED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// Maps `length` bytes from `offset`.
#[expect(unsafe_code, reason = "mapping memory is only possible so")]
fn map(sealed: &SealedFile, offset: u64, length: u64) -> Result<NonNull<[u8]>, String> {
    let end = offset.checked_add(length).filter(|end| *end <= sealed.bytes);
    if end.is_none() || length == 0 || !offset.is_multiple_of(CODE_ALIGNMENT) {
        return Err(format!(
            "found {length} bytes from {offset}, expected some from a multiple of {CODE_ALIGNMENT} within {}",
            sealed.bytes
        ));
    }
    let length = usize::try_from(length).map_err(|error| error.to_string())?;
    // SAFETY: the kernel chooses an address where nothing of ours is. The file is sealed, so no access can fault
    // for want of a page, and no byte of it ever changes.
    let start = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ,
            MapFlags::PRIVATE,
            sealed.file.as_fd(),
            offset,
        )
    };
    let start = start.map_err(|error| error.to_string())?;
    MAPPED.lock().insert(start.addr(), length);
    let start = NonNull::new(start.cast::<u8>()).ok_or("the kernel mapped it to address 0")?;
    Ok(NonNull::slice_from_raw_parts(start, length))
}

/// Unmaps what `address` lies in; `false` when nothing of ours does.
#[expect(unsafe_code, reason = "unmapping memory is only possible so")]
fn unmap(address: usize) -> Result<bool, rustix::io::Errno> {
    let mut mapped = MAPPED.lock();
    let Some((&start, &length)) = mapped.range(..=address).next_back() else { return Ok(false) };
    if address - start >= length {
        return Ok(false);
    }
    mapped.remove(&start);
    // SAFETY: it is what `map` mapped, and nobody has unmapped it: it was in the list. The engine, the only one who knows
    // of it, has just said that it is done with it.
    unsafe { rustix::mm::munmap(std::ptr::without_provenance_mut(start), length) }.map(|()| true)
}

/// The component whose code lies at `offset` in a sealed file. The code is mapped until the engine lets go of it, which it
/// does when nothing is left that could run it: the component, what is linked from it, instances, memory of instances
/// that waits for others of the same component.
///
/// # Errors
/// When there is no code at that place, or code for another engine.
#[expect(unsafe_code, reason = "the engine cannot check that it made the code itself")]
pub(crate) fn component(
    engine: &Engine,
    module: &str,
    sealed: &SealedFile,
    offset: u64,
    length: u64,
) -> Result<Component, MappingError> {
    let failed = |reason| MappingError { module: module.to_owned(), reason };
    let bytes = map(sealed, offset, length).map_err(failed)?;
    // SAFETY: the bytes are what our own compile helper wrote; it hands nothing on that it did not compile itself, and
    // since then they were sealed. They stay mapped until the engine has said that it is done with them.
    let component = unsafe { Component::deserialize_raw(engine, bytes) };
    // What is refused may stay mapped. That happens only when code and image do not fit, and then once.
    component.map_err(|error| failed(format!("{error:#}")))
}

/// Makes mapped code executable, and unmaps it in the end.
#[derive(Debug)]
pub(crate) struct PageProtection;

impl PageProtection {
    #[expect(unsafe_code, reason = "changing the protection of memory is only possible so")]
    fn protect(start: *const u8, length: usize, protection: MprotectFlags) -> wasmtime::Result<()> {
        // SAFETY: the engine names the text of code that it holds, whole pages of it; nobody writes there.
        unsafe { rustix::mm::mprotect(start.cast_mut().cast(), length, protection) }
            .map_err(|error| wasmtime::Error::msg(format!("changing the protection of code: {error}")))
    }
}

impl CustomCodeMemory for PageProtection {
    fn required_alignment(&self) -> usize {
        rustix::param::page_size()
    }

    fn publish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        Self::protect(start, length, MprotectFlags::READ | MprotectFlags::EXEC)
    }

    fn unpublish_executable(&self, start: *const u8, length: usize) -> wasmtime::Result<()> {
        // The engine says this last of all, when it drops code. Code has no tables for the unwinder of the operating
        // system (see `engine::settings`), so nothing has to be read to take them back.
        match unmap(start.addr()) {
            Ok(true) => Ok(()),
            Ok(false) => Self::protect(start, length, MprotectFlags::READ),
            Err(error) => Err(wasmtime::Error::msg(format!("unmapping code: {error}"))),
        }
    }
}
