//! The algorithm's runtime: tokio, with chance from [`shoal_ambient`], so that a simulated election repeats exactly.

use std::future::Future;
use std::time::Duration;

use crypto_secretbox::aead::rand_core::{Error, RngCore};
use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};

/// Tokio.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tokio;

/// Random numbers, as the version of `rand` that the algorithm uses has them.
#[derive(Debug, Clone, Copy)]
pub struct Chance;

/// A type of tokio's own implementation.
type Of<T> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;

impl AsyncRuntime for Tokio {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Chance;
    type OneshotSender<T: OptionalSend> = Of<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Chance {
        Chance
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        rand::RngCore::next_u32(&mut shoal_ambient::chance())
    }

    fn next_u64(&mut self) -> u64 {
        rand::RngCore::next_u64(&mut shoal_ambient::chance())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        rand::RngCore::fill_bytes(&mut shoal_ambient::chance(), bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}
