//! What surrounds a program and is not the same twice: the time, chance, and other threads.
//!
//! In the daemon these are the system's. On a thread that [`inhabit`]s a world they are that world's, so that the
//! simulator can run the real code of managers and agents from one seed. Nothing else may ask the system for them where
//! the simulator runs it (`raft`, `manager`, and `agent` without the engine).

use std::cell::RefCell;
use std::rc::Rc;

use rand::RngCore;
use shoal_types::Timestamp;
use tokio::task::{JoinError, spawn_blocking};

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Where time and chance come from in place of the system.
pub trait World {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// Fills `bytes` at random.
    fn fill(&self, bytes: &mut [u8]);
}

/// Ends the stay in a world when it is dropped.
#[derive(Debug)]
pub struct Stay(());

/// Random numbers. Fit for identifiers and for spreading load; keys come from the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chance;

/// From now on `world` is what this thread has of time and chance.
#[must_use = "the stay ends when this is dropped"]
pub fn inhabit(world: Rc<dyn World>) -> Stay {
    WORLD.set(Some(world));
    Stay(())
}

/// The time of day.
pub fn now() -> Timestamp {
    world().map_or_else(Timestamp::now, |world| world.now())
}

/// Random numbers.
pub fn chance() -> Chance {
    Chance
}

/// Runs `work`, which waits for the disk, where it does not keep others from running.
///
/// # Errors
/// It panicked, or the runtime ended before it began.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if is_inhabited() { Ok(work()) } else { spawn_blocking(work).await }
}

/// Whether this thread is in a world of its own, where there are no other threads.
pub fn is_inhabited() -> bool {
    WORLD.with_borrow(Option::is_some)
}

fn world() -> Option<Rc<dyn World>> {
    WORLD.with_borrow(Clone::clone)
}

impl Drop for Stay {
    fn drop(&mut self) {
        WORLD.set(None);
    }
}

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        match world() {
            Some(world) => world.fill(bytes),
            None => rand::rng().fill_bytes(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    struct Still;
    impl World for Still {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    #[tokio::test]
    async fn a_world_replaces_the_system_for_its_thread_until_the_stay_ends() {
        let here = std::thread::current().id();
        let stay = inhabit(Rc::new(Still));
        assert_eq!((now(), chance().random::<u16>()), (Timestamp::UNIX_EPOCH, 0x0707));
        assert_eq!(blocking(|| std::thread::current().id()).await.unwrap(), here);
        assert!(std::thread::spawn(now).join().unwrap() > Timestamp::UNIX_EPOCH);
        drop(stay);
        assert!(now() > Timestamp::UNIX_EPOCH);
        assert_ne!(chance().random::<u128>(), chance().random());
        assert_ne!(blocking(|| std::thread::current().id()).await.unwrap(), here);
    }
}
