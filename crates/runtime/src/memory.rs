//! The C library's allocator, told to keep little.
//!
//! It serves the whole process but is set here, where calls of that kind belong.

/// Pools of free memory. By default there are eight for every processor, and what threads that have ended left in theirs
/// stays.
const POOLS: libc::c_int = 2;
/// Blocks from this size on go back to the system as soon as they are freed. A fixed size: by default it grows.
const LARGE: libc::c_int = 128 << 10;

/// Makes free memory of this process few and shared. To be called before there are threads.
pub fn limit_free_memory() {
    // SAFETY: sets numbers of the allocator; what it does not know it ignores
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, POOLS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// Gives the system back what is free.
pub fn release_free_memory() {
    // SAFETY: touches free memory only, under the allocator's own locks
    unsafe { libc::malloc_trim(0) };
}
