//! Generated workflows: trees of the things that people write in handlers.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use duramen_core::derive::ValueKind;
use duramen_core::ids::Millis;
use duramen_core::retry::{Backoff, RetryPolicy};

use crate::rng::Rng;

/// A part of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Step(Step),
    Sleep(Millis),
    /// Waits for the next event of that name.
    Event {
        name: &'static str,
        timeout: Option<Millis>,
    },
    Approval {
        timeout: Option<Millis>,
    },
    Value(ValueKind),
    /// Asks whether a patch is in force.
    Patched(&'static str),
    /// Writes an item to a stream.
    Write(&'static str),
    /// Starts a run of its own and waits for its end.
    Child,
    /// Sends an event to another run.
    Tell(&'static str),
    /// One after the other.
    Seq(Vec<Rc<Node>>),
    /// `gather`: all of them, failures included.
    All(Vec<Rc<Node>>),
    /// The first that ends wins, the others are cancelled.
    Race(Vec<Rc<Node>>),
    /// `TaskGroup`: the first failure cancels the others.
    Group(Vec<Rc<Node>>),
    Loop(u32, Rc<Node>),
    /// `asyncio.timeout`.
    Within(Millis, Rc<Node>),
    /// A failure becomes a value.
    Catch(Rc<Node>),
    /// Cleans up when it is cancelled, then goes on being cancelled.
    Guard {
        body: Rc<Node>,
        cleanup: Rc<Node>,
    },
}

/// A step and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub id: String,
    /// So many attempts fail.
    pub fails: u32,
    /// The failure forbids another attempt.
    pub fatal: bool,
    pub policy: RetryPolicy,
    /// Recorded with the next durable commit only.
    pub lazy: bool,
    /// How long an attempt takes.
    pub takes: Millis,
}

/// What the child of that id does: all but a few complete.
pub fn child(run_id: &str) -> Rc<Program> {
    let digest = run_id.bytes().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let step = Step {
        id: "c".to_owned(),
        fails: u32::from(digest.is_multiple_of(4)),
        fatal: false,
        policy: RetryPolicy::NEVER,
        lazy: false,
        takes: i64::from(digest.is_multiple_of(3)) * 300,
    };
    let nap = Node::Sleep(i64::from(digest.is_multiple_of(2)) * 700);
    let parts = vec![Rc::new(nap), Rc::new(Node::Step(step))];
    Rc::new(Program::new(Rc::new(Node::Seq(parts))))
}

/// Names of events that handlers wait for and that are sent.
pub const EVENTS: [&str; 3] = ["x", "y", "z"];

/// Names of streams that handlers write to.
pub const STREAMS: [&str; 2] = ["v", "w"];

/// A handler: its tree, and its steps by their ids.
#[derive(Debug, Clone)]
pub struct Program {
    pub root: Rc<Node>,
    steps: BTreeMap<String, Step>,
}

impl Program {
    pub fn new(root: Rc<Node>) -> Self {
        let mut steps = BTreeMap::new();
        collect(&root, &mut steps);
        Self { root, steps }
    }

    /// The step behind an operation id: repeats are marked by `#2`, `#3` …
    pub fn step(&self, op: &str) -> Option<&Step> {
        self.steps.get(op.split('#').next().unwrap_or(op))
    }

    pub fn generate(rng: &mut Rng) -> Self {
        let mut maker = Maker {
            rng,
            steps: 0,
            budget: 14,
        };
        let mut parts = Vec::new();
        for _ in 0..=maker.rng.below(3) {
            parts.push(maker.node(3));
        }
        Self::new(Rc::new(Node::Seq(parts)))
    }

    /// Smaller handlers that may fail in the same way, for telling a failing seed's story.
    pub fn smaller(&self) -> Vec<Self> {
        shrink(&self.root)
            .into_iter()
            .map(|root| Self::new(Rc::new(root)))
            .collect()
    }
}

fn collect(node: &Node, steps: &mut BTreeMap<String, Step>) {
    if let Node::Step(step) = node {
        steps.insert(step.id.clone(), step.clone());
    }
    for child in children(node) {
        collect(child, steps);
    }
}

fn children(node: &Node) -> Vec<&Rc<Node>> {
    match node {
        Node::Seq(of) | Node::All(of) | Node::Race(of) | Node::Group(of) => of.iter().collect(),
        Node::Loop(_, of) | Node::Within(_, of) | Node::Catch(of) => vec![of],
        Node::Guard { body, cleanup } => vec![body, cleanup],
        Node::Step(_)
        | Node::Sleep(_)
        | Node::Event { .. }
        | Node::Approval { .. }
        | Node::Value(_)
        | Node::Patched(_)
        | Node::Write(_)
        | Node::Child
        | Node::Tell(_) => Vec::new(),
    }
}

/// The same node with other children.
fn rebuilt(node: &Node, children: Vec<Rc<Node>>) -> Node {
    let mut of = children.into_iter();
    let mut one = || of.next().unwrap_or_else(|| Rc::new(Node::Seq(Vec::new())));
    match node {
        Node::Loop(times, _) => Node::Loop(*times, one()),
        Node::Within(span, _) => Node::Within(*span, one()),
        Node::Catch(_) => Node::Catch(one()),
        Node::Guard { .. } => Node::Guard {
            body: one(),
            cleanup: one(),
        },
        Node::Seq(_) => Node::Seq(of.collect()),
        Node::All(_) => Node::All(of.collect()),
        Node::Race(_) => Node::Race(of.collect()),
        Node::Group(_) => Node::Group(of.collect()),
        leaf => leaf.clone(),
    }
}

fn shrink(node: &Node) -> Vec<Node> {
    let below = children(node);
    let mut out: Vec<Node> = below.iter().map(|child| (***child).clone()).collect();
    let list = matches!(
        node,
        Node::Seq(_) | Node::All(_) | Node::Race(_) | Node::Group(_)
    );
    let least = usize::from(matches!(node, Node::Race(_)));
    for at in 0..below.len() {
        if list && below.len() > least {
            let mut rest: Vec<Rc<Node>> = below.iter().map(|child| Rc::clone(child)).collect();
            rest.remove(at);
            out.push(rebuilt(node, rest));
        }
        for smaller in shrink(below[at]) {
            let mut rest: Vec<Rc<Node>> = below.iter().map(|child| Rc::clone(child)).collect();
            rest[at] = Rc::new(smaller);
            out.push(rebuilt(node, rest));
        }
    }
    if let Node::Step(step) = node
        && (step.takes > 0 || step.fails > 0 || step.lazy)
    {
        out.push(Node::Step(Step {
            takes: 0,
            fails: 0,
            lazy: false,
            fatal: false,
            ..step.clone()
        }));
    }
    out
}

struct Maker<'a> {
    rng: &'a mut Rng,
    steps: u32,
    /// How many leaves there may be: a journal one can still read.
    budget: u32,
}

impl Maker<'_> {
    fn node(&mut self, depth: u32) -> Rc<Node> {
        let node = if depth == 0 || self.budget < 2 || self.rng.one_in(3) {
            self.leaf()
        } else {
            match self.rng.below(9) {
                0 | 1 => Node::Seq(self.nodes(2, 3, depth)),
                2 => Node::All(self.nodes(2, 4, depth)),
                3 | 4 => Node::Race(self.nodes(2, 3, depth)),
                5 => Node::Group(self.nodes(2, 3, depth)),
                6 => {
                    let times = u32::try_from(self.rng.span(2, 3)).unwrap_or(2);
                    self.budget /= times;
                    Node::Loop(times, self.node(depth - 1))
                }
                7 => Node::Within(self.rng.span(5, 1_500), self.node(depth - 1)),
                _ => Node::Guard {
                    body: self.node(depth - 1),
                    cleanup: Rc::new(self.step()),
                },
            }
        };
        // What fails is caught more often than not, or most handlers would end at their beginning.
        let is_plain = matches!(
            node,
            Node::Value(_)
                | Node::Patched(_)
                | Node::Write(_)
                | Node::Sleep(_)
                | Node::Child
                | Node::Tell(_)
        );
        let catches = !is_plain && self.rng.one_in(2);
        Rc::new(if catches {
            Node::Catch(Rc::new(node))
        } else {
            node
        })
    }

    fn nodes(&mut self, low: i64, high: i64, depth: u32) -> Vec<Rc<Node>> {
        (0..self.rng.span(low, high))
            .map(|_| self.node(depth - 1))
            .collect()
    }

    fn leaf(&mut self) -> Node {
        self.budget = self.budget.saturating_sub(1);
        match self.rng.below(12) {
            0 => Node::Sleep(self.rng.span(0, 40)),
            1 => Node::Sleep(self.rng.span(100, 4_000)),
            2 => {
                let [now, uuid, random] =
                    [ValueKind::Now, ValueKind::Uuid, ValueKind::Random].map(Node::Value);
                let [p, q] = ["p", "q"].map(Node::Patched);
                let [first, second] = STREAMS.map(Node::Write);
                let leaves = [
                    &now, &uuid, &random, &p, &q, &first, &second, &first, &second,
                ];
                match self.rng.pick(&leaves, &now).clone() {
                    // Drawn by what was drawn already, so that older seeds keep their meaning elsewhere.
                    Node::Value(ValueKind::Uuid) if self.budget.is_multiple_of(2) => Node::Child,
                    Node::Value(ValueKind::Random) if !self.budget.is_multiple_of(2) => {
                        Node::Tell(EVENTS[(self.budget / 2) as usize % EVENTS.len()])
                    }
                    leaf => leaf,
                }
            }
            3 | 4 => Node::Event {
                name: self.rng.pick(&EVENTS, EVENTS[0]),
                timeout: self.timeout(),
            },
            5 => Node::Approval {
                timeout: self.timeout(),
            },
            _ => self.step(),
        }
    }

    fn timeout(&mut self) -> Option<Millis> {
        (!self.rng.one_in(3)).then(|| self.rng.span(0, 3_000))
    }

    fn step(&mut self) -> Node {
        // A few ids are used twice: by order of request they get `#2`.
        if !(self.steps > 0 && self.rng.one_in(8)) {
            self.steps += 1;
        }
        let mut own = Rng::new(u64::from(self.steps) ^ self.rng.draw());
        let attempts = u32::try_from(own.span(1, 3)).unwrap_or(1);
        let fails = if own.one_in(3) {
            u32::try_from(own.span(1, 3)).unwrap_or(1)
        } else {
            0
        };
        Node::Step(Step {
            id: format!("s{}", self.steps),
            fails,
            fatal: own.one_in(6),
            policy: RetryPolicy {
                attempts,
                backoff: Backoff::Exponential,
                base: own.pick(&[0, 10, 200, 1_500], 10),
                cap: 2_000,
                jitter: own.one_in(2),
                pauses_run: false,
            },
            lazy: own.one_in(6),
            takes: own.pick(&[0, 0, 0, 1, 5, 5, 30, 200, 900, 6_000], 0),
        })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, of: &[Rc<Self>]| {
            write!(f, "{name}(")?;
            for (at, node) in of.iter().enumerate() {
                write!(f, "{}{node}", if at == 0 { "" } else { ", " })?;
            }
            write!(f, ")")
        };
        let within = |timeout: &Option<Millis>| {
            timeout.map_or(String::new(), |span| format!(" within {span} ms"))
        };
        match self {
            Self::Step(step) => {
                write!(f, "step {}", step.id)?;
                if step.takes > 0 {
                    write!(f, " {} ms", step.takes)?;
                }
                if step.fails > 0 {
                    let fatal = if step.fatal { " fatally" } else { "" };
                    let (fails, of) = (step.fails, step.policy.attempts);
                    write!(f, " fails {fails} of {of}{fatal}")?;
                }
                write!(f, "{}", if step.lazy { " lazy" } else { "" })
            }
            Self::Sleep(span) => write!(f, "sleep {span} ms"),
            Self::Event { name, timeout } => write!(f, "event {name}{}", within(timeout)),
            Self::Approval { timeout } => write!(f, "approval{}", within(timeout)),
            Self::Value(kind) => write!(f, "{}", kind.name()),
            Self::Patched(id) => write!(f, "patched {id}"),
            Self::Write(stream) => write!(f, "write {stream}"),
            Self::Child => write!(f, "child"),
            Self::Tell(name) => write!(f, "tell {name}"),
            Self::Seq(of) => list(f, "seq", of),
            Self::All(of) => list(f, "all", of),
            Self::Race(of) => list(f, "race", of),
            Self::Group(of) => list(f, "group", of),
            Self::Loop(times, of) => write!(f, "{times} times {of}"),
            Self::Within(span, of) => write!(f, "within {span} ms ({of})"),
            Self::Catch(of) => write!(f, "catch({of})"),
            Self::Guard { body, cleanup } => write!(f, "guard({body} | {cleanup})"),
        }
    }
}
