use super::*;

/// An instance with its berth.
type Boat = (&'static str, Berth);

impl Mortal for Boat {
    fn is_told(&self) -> bool {
        false
    }

    async fn end(self, _: Instant) {}
}

/// An instance whose code does not come to an end, and says that it is told.
struct Steamer {
    told: Arc<AtomicUsize>,
    _berth: Berth,
}

impl Mortal for Steamer {
    fn is_told(&self) -> bool {
        true
    }

    async fn end(self, _: Instant) {
        self.told.fetch_add(1, Ordering::Relaxed);
        std::future::pending().await
    }
}

/// A module whose last instances are called just before they are dismissed.
struct Called;

impl Idle for Called {
    fn count(&self) -> usize {
        2
    }

    fn dismiss(&self) -> bool {
        false
    }

    fn tidy(&self) {}
}

async fn boat(berths: &Arc<Berths>, name: &'static str) -> Boat {
    (name, berths.take(1).await)
}

fn names(shelf: &Shelf<Boat>) -> Vec<&'static str> {
    shelf.waiting.lock().residents.iter().map(|(name, _)| *name).collect()
}

#[tokio::test]
async fn whoever_finds_no_berth_gets_that_of_the_one_that_waits_longest_where_most_do() {
    let berths = Berths::new();
    let _rest = berths.leave(3);
    let (few, many) = (Shelf::new(&berths), Shelf::new(&berths));
    few.push(boat(&berths, "a").await);
    for name in ["b", "c"] {
        many.push(boat(&berths, name).await);
    }
    let _new = boat(&berths, "d").await;
    assert_eq!((names(&few), names(&many)), (vec!["a"], vec!["c"]));
    let _large = berths.take(2).await;
    assert_eq!(few.len() + many.len(), 0);
}

#[tokio::test]
async fn when_all_are_called_whoever_ends_next_gives_way() {
    let berths = Berths::new();
    let _rest = berths.leave(1);
    let shelf = Shelf::new(&berths);
    let called = boat(&berths, "a").await;
    let mut wants = std::pin::pin!(boat(&berths, "b"));
    assert!(polled(wants.as_mut()).is_none());
    shelf.push(called);
    assert_eq!(shelf.len(), 0);
    let (name, berth) = wants.await;
    shelf.push((name, berth));
    assert_eq!(names(&shelf), ["b"], "nobody wants it any more");
}

#[tokio::test]
async fn those_that_nobody_wanted_go_and_one_stays() {
    let berths = Berths::new();
    let shelf = Shelf::new(&berths);
    for name in ["a", "b", "c", "d"] {
        shelf.push(boat(&berths, name).await);
    }
    berths.tidy();
    assert_eq!(names(&shelf), ["a", "b", "c", "d"], "they have come since");
    let called = [shelf.pop().unwrap(), shelf.pop().unwrap()];
    called.into_iter().rev().for_each(|boat| shelf.push(boat));
    berths.tidy();
    assert_eq!(names(&shelf), ["c", "d"], "two were wanted");
    berths.tidy();
    assert_eq!(names(&shelf), ["d"]);
    berths.tidy();
    assert_eq!(names(&shelf), ["d"]);
    assert_eq!(berths.free.available_permits(), INSTANCES_MAX as usize - 1);
}

#[tokio::test]
async fn where_the_last_one_was_called_meanwhile_another_module_gives_way() {
    let berths = Berths::new();
    let _rest = berths.leave(1);
    let shelf = Shelf::new(&berths);
    shelf.push(boat(&berths, "a").await);
    let called: Arc<dyn Idle> = Arc::new(Called);
    berths.shelves.lock().push(Arc::downgrade(&called));
    let mut wants = std::pin::pin!(boat(&berths, "b"));
    assert!(polled(wants.as_mut()).is_some(), "nobody waits beside an instance that does");
    assert_eq!(shelf.len(), 0);
}

#[tokio::test]
async fn those_whose_code_is_told_have_their_berths_until_then_or_somebody_wants_one() {
    let berths = Berths::new();
    let _rest = berths.leave(3);
    let (shelf, told) = (Shelf::new(&berths), Arc::new(AtomicUsize::new(0)));
    for _ in 0..3 {
        shelf.push(Steamer { told: Arc::clone(&told), _berth: berths.take(1).await });
    }
    berths.tidy();
    berths.tidy();
    assert_eq!((shelf.len(), told.load(Ordering::Relaxed)), (1, 0), "whoever tidies does not wait for it");
    while told.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(berths.free.available_permits(), 0);
    let _all = berths.take(3).await;
    assert_eq!(told.load(Ordering::Relaxed), 1, "one after the other");
}

#[tokio::test]
async fn no_more_are_told_than_there_are_places_for() {
    let berths = Berths::new();
    let (shelf, told) = (Shelf::new(&berths), Arc::new(AtomicUsize::new(0)));
    let mut residents = Vec::new();
    for _ in 0..ENDINGS_MAX + 1 {
        residents.push(Steamer { told: Arc::clone(&told), _berth: berths.take(1).await });
    }
    shelf.retire(residents);
    assert_eq!(berths.free.available_permits(), INSTANCES_MAX as usize - ENDINGS_MAX);
}

/// What a future has come to by now.
fn polled<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
