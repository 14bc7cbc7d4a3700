//! Runs blocking work off the async threads, and spreads it over a few threads.

use std::panic::resume_unwind;

use unisono_core::{Error, ErrorKind, Result};

/// How many files are read at the same time.
pub(crate) fn readers() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8))
}

/// How many files are made durable at the same time: the file system commits those that wait together at once.
pub(crate) const WRITERS: usize = 8;

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await.map_err(|failure| failure.try_into_panic()) {
        Ok(answer) => answer,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => Err(Error::new(ErrorKind::Cancelled, "the process is ending")),
    }
}

/// Does `work` for each item on at most `threads` threads; answers in the order of the items.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    if share >= items.len() {
        return items.iter().map(work).collect();
    }
    let work = &work;
    let mut answers = Vec::with_capacity(items.len());
    std::thread::scope(|scope| {
        let run = |part: &'_ [T]| part.iter().map(work).collect::<Result<Vec<R>>>();
        let started: Vec<_> =
            items.chunks(share).map(|part| scope.spawn(move || run(part))).collect();
        for thread in started {
            answers.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(())
    })
    .map(|()| answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_a_failure_fails_the_whole() {
        let items: Vec<u32> = (0..1000).collect();
        assert_eq!(each(&items, 7, |n| Ok(n * 2)).unwrap()[999], 1998);
        assert!(each(&[] as &[u32], 7, |n| Ok(*n)).unwrap().is_empty());
        assert!(
            each(&items, 7, |n| if *n == 500 { Err(Error::invalid("x")) } else { Ok(()) }).is_err()
        );
    }
}
