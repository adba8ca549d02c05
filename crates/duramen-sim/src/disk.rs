//! A disk that fails, under the real SQLite: a layer over the system's own VFS that notes what is
//! written and what is synced, fails on demand, and knows what a power cut would leave.
//!
//! Files really lie in a directory; what is read is what was written. A power cut ends all writing;
//! [`Disk::after_power_cut`] then gives the files as the disk may hold them: everything that was
//! synced, and of what was not, any part of any write.

// SQLite's file systems are tables of C functions.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock};

use rusqlite::ffi;

use crate::rng::Rng;
use crate::world::lock;

/// What happens to one write or sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// Half of a write is there, and SQLite is told that it failed.
    ShortWrite,
    /// There is no room: nothing is written.
    Full,
    /// A sync fails, and nothing that was written before is certain.
    SyncFails,
    /// The power is gone in the middle of it.
    PowerCut,
}

/// The least that a disk writes whole.
const SECTOR: usize = 512;

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Since the last sync, oldest first.
    pending: Vec<Change>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, File>,
    faults: BTreeMap<u64, DiskFault>,
    /// Writes and syncs so far.
    operations: u64,
    off: bool,
    met: u64,
    /// Planted: it says that it has synced, and has not.
    lies: bool,
}

/// See the module's head. It lasts as long as somebody holds it; files may be open longer.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    state: Mutex<State>,
}

impl File {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { at, bytes } => {
                let end = at + bytes.len();
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                self.durable[*at..end].copy_from_slice(bytes);
            }
            Change::Truncate(length) => self.durable.truncate(*length),
        }
    }
}

fn disks() -> &'static Mutex<Vec<Arc<Disk>>> {
    static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());
    &DISKS
}

impl Disk {
    /// Takes over the files of a folder; what is in it is taken for durable. Faults strike the writes
    /// and syncs of these numbers, counted from 0.
    pub fn new(folder: &Path, faults: BTreeMap<u64, DiskFault>) -> std::io::Result<Arc<Self>> {
        install().map_err(|code| std::io::Error::other(format!("SQLite's VFS: {code}")))?;
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let file = File {
                durable: std::fs::read(entry.path())?,
                pending: Vec::new(),
            };
            files.insert(entry.file_name().to_string_lossy().into_owned(), file);
        }
        let disk = Arc::new(Self {
            folder: folder.to_owned(),
            state: Mutex::new(State {
                files,
                faults,
                ..State::default()
            }),
        });
        lock(disks()).push(Arc::clone(&disk));
        Ok(disk)
    }

    /// Whether the power is gone.
    pub fn is_off(&self) -> bool {
        lock(&self.state).off
    }

    /// How many faults struck.
    pub fn met(&self) -> u64 {
        lock(&self.state).met
    }

    /// Writes and syncs so far.
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// From now on it acknowledges syncs and does not carry them out; a planted fault.
    pub fn lie(&self) {
        lock(&self.state).lies = true;
    }

    /// No faults from now on.
    pub fn calm(&self) {
        lock(&self.state).faults.clear();
    }

    /// The power is gone from now on.
    pub fn cut(&self) {
        lock(&self.state).off = true;
    }

    /// Puts what a power cut leaves into another folder, and forgets this one.
    pub fn after_power_cut(&self, into: &Path, rng: &mut Rng) -> std::io::Result<()> {
        lock(disks()).retain(|disk| disk.folder != self.folder);
        let mut state = lock(&self.state);
        state.off = true;
        for (name, file) in &mut state.files {
            // The index of the log is memory: it is gone.
            if name.ends_with("-shm") {
                continue;
            }
            for change in std::mem::take(&mut file.pending) {
                for part in survivors(change, rng) {
                    file.apply(&part);
                }
            }
            std::fs::write(into.join(name), &file.durable)?;
        }
        Ok(())
    }

    /// Forgets this disk.
    pub fn forget(&self) {
        lock(disks()).retain(|disk| disk.folder != self.folder);
    }

    /// What becomes of the next write or sync.
    fn next(&self) -> Option<DiskFault> {
        let mut state = lock(&self.state);
        if state.off {
            return Some(DiskFault::PowerCut);
        }
        let number = state.operations;
        state.operations += 1;
        let fault = state.faults.remove(&number);
        state.met += u64::from(fault.is_some());
        state.off |= fault == Some(DiskFault::PowerCut);
        fault
    }

    fn note(&self, name: &str, change: Change) {
        let mut state = lock(&self.state);
        let file = state.files.entry(name.to_owned()).or_default();
        file.pending.push(change);
    }

    fn synced(&self, name: &str) {
        let mut state = lock(&self.state);
        if state.lies {
            return;
        }
        if let Some(file) = state.files.get_mut(name) {
            for change in std::mem::take(&mut file.pending) {
                file.apply(&change);
            }
        }
    }

    fn deleted(&self, name: &str) {
        lock(&self.state).files.remove(name);
    }
}

/// What is left of a change that was not synced: all, nothing, or some of its sectors.
fn survivors(change: Change, rng: &mut Rng) -> Vec<Change> {
    match (rng.below(3), change) {
        (0, change) => vec![change],
        (1, Change::Write { at, bytes }) => {
            let mut parts = Vec::new();
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                if rng.one_in(2) {
                    parts.push(Change::Write {
                        at: at + number * SECTOR,
                        bytes: sector.to_vec(),
                    });
                }
            }
            parts
        }
        _ => Vec::new(),
    }
}

/// One open file: SQLite's part first, then ours; the system's own file lies behind it.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    /// The system's file.
    real: *mut ffi::sqlite3_file,
    /// Made by `Box::into_raw`, freed on close.
    ours: *mut Ours,
}

struct Ours {
    disk: Arc<Disk>,
    name: String,
}

/// Room for a handle, so that what follows it is aligned as SQLite aligns a file.
const ROOM: usize = size_of::<Handle>().next_multiple_of(16);

/// The system's own VFS, as an address: it lives as long as the process.
static REAL: OnceLock<usize> = OnceLock::new();

fn real() -> *mut ffi::sqlite3_vfs {
    REAL.get().map_or(ptr::null_mut(), |address| {
        ptr::with_exposed_provenance_mut(*address)
    })
}

/// Puts this layer before the system's VFS, once in a process. Files elsewhere are passed on.
fn install() -> Result<(), c_int> {
    static INSTALLED: OnceLock<c_int> = OnceLock::new();
    let code = *INSTALLED.get_or_init(|| {
        // SAFETY: SQLite gives its default VFS, which is never freed; the copy is leaked, so that the
        // pointer that SQLite keeps stays good. The system's functions do not look at the copied
        // fields but for `pAppData`, which `open` leaves to the original.
        unsafe {
            let found = ffi::sqlite3_vfs_find(ptr::null());
            if found.is_null() {
                return ffi::SQLITE_ERROR;
            }
            let _ = REAL.set(found.expose_provenance());
            let mut vfs = ptr::read(found);
            vfs.pNext = ptr::null_mut();
            vfs.zName = c"duramen-sim".as_ptr();
            vfs.szOsFile += c_int::try_from(ROOM).unwrap_or(c_int::MAX);
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 1)
        }
    });
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(code)
    }
}

/// The disk of a path, and the file's name on it.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn disk_of(path: *const c_char) -> Option<(Arc<Disk>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as promised by the caller.
    let path = unsafe { CStr::from_ptr(path) }
        .to_string_lossy()
        .into_owned();
    let path = Path::new(&path);
    let name = path.file_name()?.to_string_lossy().into_owned();
    let disks = lock(disks());
    let disk = disks
        .iter()
        .find(|disk| path.parent() == Some(&*disk.folder))?;
    Some((Arc::clone(disk), name))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives room of `szOsFile` bytes behind `file`, which is that of the system's file
    // and `ROOM` more; `path` is null or a C string that outlives the file.
    unsafe {
        let Some(open) = (*real()).xOpen else {
            return ffi::SQLITE_ERROR;
        };
        let Some((disk, name)) = disk_of(path) else {
            return open(real(), path, file, flags, out);
        };
        let handle = file.cast::<Handle>();
        let inner = file.byte_add(ROOM);
        (*handle).base.pMethods = ptr::null();
        if disk.is_off() {
            return ffi::SQLITE_CANTOPEN;
        }
        let code = open(real(), path, inner, flags, out);
        if code == ffi::SQLITE_OK {
            (*handle).real = inner;
            (*handle).ours = Box::into_raw(Box::new(Ours { disk, name }));
            (*handle).base.pMethods = &raw const METHODS;
        }
        code
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite gives a C string; the system's VFS was found when this one was installed.
    unsafe {
        if let Some((disk, name)) = disk_of(path) {
            if disk.is_off() {
                return ffi::SQLITE_IOERR_DELETE;
            }
            disk.deleted(&name);
        }
        (*real())
            .xDelete
            .map_or(ffi::SQLITE_ERROR, |delete| delete(real(), path, sync))
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Without the third version's mapped pages.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock_file),
    xUnlock: Some(unlock_file),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Calls the system's method with the system's file.
macro_rules! pass_on {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls methods only of files that `open` has made and `close` has not ended,
        // with the arguments that the same method of the system's file expects.
        unsafe {
            let real = (*$file.cast::<Handle>()).real;
            (*(*real).pMethods)
                .$method
                .map_or(ffi::SQLITE_IOERR, |method| method(real $(, $argument)*))
        }
    }};
}

/// Our part of a file.
///
/// # Safety
/// `file` was made by `open` and not closed.
unsafe fn ours<'a>(file: *mut ffi::sqlite3_file) -> &'a Ours {
    // SAFETY: as promised by the caller; nothing changes it between open and close.
    unsafe { &*(*file.cast::<Handle>()).ours }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = pass_on!(file, xClose);
    // SAFETY: `open` made it, and SQLite closes a file once.
    drop(unsafe { Box::from_raw((*file.cast::<Handle>()).ours) });
    code
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite calls it with an open file.
    if unsafe { ours(file) }.disk.is_off() {
        return ffi::SQLITE_IOERR_READ;
    }
    pass_on!(file, xRead, into, amount, at)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite calls it with an open file and a buffer of `amount` bytes.
    let (ours, bytes) = unsafe {
        let length = usize::try_from(amount).unwrap_or(0);
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), length);
        (ours(file), bytes)
    };
    let place = usize::try_from(at).unwrap_or(0);
    let note = |bytes: &[u8]| {
        ours.disk.note(
            &ours.name,
            Change::Write {
                at: place,
                bytes: bytes.to_vec(),
            },
        );
    };
    match ours.disk.next() {
        None | Some(DiskFault::SyncFails) => {
            note(bytes);
            pass_on!(file, xWrite, from, amount, at)
        }
        Some(DiskFault::Full) => ffi::SQLITE_FULL,
        Some(DiskFault::ShortWrite) => {
            let half = amount / 2;
            note(&bytes[..bytes.len() / 2]);
            let code = pass_on!(file, xWrite, from, half, at);
            if code == ffi::SQLITE_OK {
                ffi::SQLITE_IOERR_WRITE
            } else {
                code
            }
        }
        Some(DiskFault::PowerCut) => {
            // It was under way: any part of it may be there.
            note(bytes);
            ffi::SQLITE_IOERR_WRITE
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: SQLite calls it with an open file.
    let ours = unsafe { ours(file) };
    if ours.disk.is_off() {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    let to = usize::try_from(length).unwrap_or(0);
    ours.disk.note(&ours.name, Change::Truncate(to));
    pass_on!(file, xTruncate, length)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls it with an open file.
    let ours = unsafe { ours(file) };
    match ours.disk.next() {
        // The real disk need not be waited for: what is durable is noted here.
        None | Some(DiskFault::ShortWrite | DiskFault::Full) => {
            ours.disk.synced(&ours.name);
            ffi::SQLITE_OK
        }
        Some(DiskFault::SyncFails | DiskFault::PowerCut) => ffi::SQLITE_IOERR_FSYNC,
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    pass_on!(file, xFileSize, size)
}

unsafe extern "C" fn lock_file(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xLock, level)
}

unsafe extern "C" fn unlock_file(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    pass_on!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    op: c_int,
    argument: *mut c_void,
) -> c_int {
    pass_on!(file, xFileControl, op, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    pass_on!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    pass_on!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass_on!(file, xShmMap, page, size, extend, out)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    pass_on!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: as for the other methods.
    unsafe {
        let real = (*file.cast::<Handle>()).real;
        if let Some(barrier) = (*(*real).pMethods).xShmBarrier {
            barrier(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    pass_on!(file, xShmUnmap, delete)
}
