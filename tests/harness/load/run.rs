//! The loop of the load generator.

use std::{
    collections::BTreeMap,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

use super::{
    Plan, Report, Reuse,
    connection::{Answer, Connection, Waiting},
    schedule::Schedule,
};
use crate::http::Failure;

const WAIT_MILLISECONDS: u16 = 2;
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// What the epoll set says of the timer, which is no connection.
const TIMER: u64 = u64::MAX;

struct Run {
    plan: Plan,
    epoll: Epoll,
    pace: Option<Pace>,
    connections: Vec<Connection>,
    report: Report,
    numbers: BTreeMap<String, u64>,
    issued: u64,
    began: Instant,
    stopping: bool,
}

/// What a load with a rate goes by.
struct Pace {
    schedule: Schedule,
    /// Expires when the next turn is due.
    timer: TimerFd,
}

impl Pace {
    fn of(plan: &Plan, began: Instant, epoll: &Epoll) -> Option<Self> {
        let schedule = Schedule::new(began, plan.rate?, plan.connections);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).expect("make a timer");
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(timer.as_fd(), EpollEvent::new(interest, TIMER)).expect("watch a timer");
        Some(Self { schedule, timer })
    }

    fn wake_at(&self, due: Instant) {
        let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(wait));
        self.timer.set(once, TimerSetTimeFlags::empty()).expect("set a timer");
    }
}

/// Runs a plan until `end` or until `stop` is set, then lets what is in flight finish.
pub(super) fn run(plan: Plan, stop: &AtomicBool, done: &AtomicU64, end: Option<Instant>) -> Report {
    let now = Instant::now();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("make an epoll set");
    let mut run = Run {
        pace: Pace::of(&plan, now, &epoll),
        epoll,
        connections: (0..plan.connections).map(|_| Connection::new(now)).collect(),
        plan,
        report: Report::default(),
        numbers: BTreeMap::new(),
        issued: 0,
        began: now,
        stopping: false,
    };
    let mut events = vec![EpollEvent::empty(); run.connections.len() + 1];
    let mut swept = now;
    loop {
        let now = Instant::now();
        run.stopping = run.stopping || stop.load(Ordering::Relaxed) || end.is_some_and(|end| now >= end);
        run.start_due(now);
        if run.stopping && run.connections.iter().all(|connection| connection.waiting == Waiting::Turn) {
            break;
        }
        let ready = match run.epoll.wait(&mut events, EpollTimeout::from(WAIT_MILLISECONDS)) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => panic!("epoll: {error}"),
        };
        for event in events[..ready].iter().filter(|event| event.data() != TIMER) {
            run.advance(event.data() as usize);
        }
        if now - swept >= SWEEP_INTERVAL {
            swept = now;
            run.sweep(now);
        }
        done.store(run.report.succeeded + run.report.failed(), Ordering::Relaxed);
    }
    run.report.elapsed = run.began.elapsed();
    run.report.latencies_us.sort_unstable();
    run.report.workers = run.numbers;
    run.report
}

impl Run {
    /// Starts a request on every connection whose turn it is.
    fn start_due(&mut self, now: Instant) {
        if self.stopping {
            return;
        }
        let mut next_due: Option<Instant> = None;
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.waiting != Waiting::Turn {
                continue;
            }
            let Some(pace) = &self.pace else {
                self.start(index, self.issued, now, now);
                continue;
            };
            let turn = pace.schedule.turn(index, connection.turns_had);
            if turn.due <= now {
                let counts_from = turn.counts_from(connection.free_since, now);
                self.start(index, turn.number, counts_from, now);
            } else {
                next_due = Some(next_due.map_or(turn.due, |next| next.min(turn.due)));
            }
        }
        if let (Some(pace), Some(due)) = (&self.pace, next_due) {
            pace.wake_at(due);
        }
    }

    fn start(&mut self, index: usize, number: u64, counts_from: Instant, now: Instant) {
        let request = (self.plan.request)(number);
        self.issued += 1;
        let connection = &mut self.connections[index];
        connection.turns_had += 1;
        match connection.begin(self.plan.address, (number, request), counts_from, now) {
            Ok(false) => self.advance(index),
            Ok(true) => {
                self.report.connections += 1;
                let stream = connection.stream().expect("it was just opened");
                let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                self.epoll
                    .add(stream.as_fd(), EpollEvent::new(interest, index as u64))
                    .expect("watch a connection");
            }
            Err(failure) => self.fail(index, failure),
        }
    }

    /// Carries one connection as far as its socket allows.
    fn advance(&mut self, index: usize) {
        if self.connections[index].waiting == Waiting::Writable
            && let Err(failure) = self.connections[index].write()
        {
            return self.fail(index, failure);
        }
        if self.connections[index].waiting == Waiting::Readable {
            match self.connections[index].read() {
                Ok(Some(answer)) => self.finish(index, answer),
                Ok(None) => {}
                Err(failure) => self.fail(index, failure),
            }
        }
    }

    fn finish(&mut self, index: usize, answer: Answer) {
        let connection = &mut self.connections[index];
        match answer.generation {
            Some(generation) => self.report.backward += u64::from(!connection.follows(generation)),
            None => self.report.unnamed += 1,
        }
        if (self.plan.wanted)(answer.status) {
            self.report.succeeded += 1;
            (self.plan.succeeded)(connection.number);
            let latency = connection.counts_from.elapsed();
            (self.plan.timed)(connection.counts_from, latency);
            self.report.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
            if let Some(worker) = answer.worker {
                *self.numbers.entry(worker).or_default() += 1;
            }
        } else {
            *self.report.failures.entry(Failure::Status(answer.status)).or_default() += 1;
        }
        if answer.closes || self.plan.reuse == Reuse::PerRequest {
            connection.close();
        }
    }

    fn fail(&mut self, index: usize, failure: Failure) {
        *self.report.failures.entry(failure).or_default() += 1;
        self.connections[index].close();
        self.connections[index].take_turns();
    }

    /// Ends requests that take too long.
    fn sweep(&mut self, now: Instant) {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.waiting != Waiting::Turn && now - connection.sent > self.plan.timeout {
                self.fail(index, Failure::Timeout);
            }
        }
    }
}
