//! Stories of several nodes, through `shoal lab`. A name that begins with `item_NNN` stands for that line of the Swarm conformance
//! checklist.
//!
//! Making a lab takes seconds, so stories share one. Whatever a story has done to its nodes is put right after it; a lab that
//! cannot be put right is replaced, and the story has failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use crate::error::{Failure, Result};
use crate::harness::Tally;
use crate::lab::{Lab, Shape};
use crate::launch::Kind;

mod authority;
mod failover;
mod heal;
mod itself;
mod jobs;
mod join;
mod logs;
mod loss;
mod roles;
mod secrets;
mod spread;
mod view;

pub use view::{Cluster, list};

/// What a story begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// One swarm: managers 1 to 3, workers 4 and 5.
    Five,
    /// Three engines in no swarm.
    Loose,
}

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// What is guaranteed.
    pub name: &'static str,
    /// What it begins with.
    pub start: Start,
    /// What happens.
    pub tell: fn(&Cluster<'_>) -> Result<()>,
}

/// What is to be run on what.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The program `shoal`, for its lab.
    pub program: PathBuf,
    /// The engines in the lab.
    pub kind: Kind,
    /// Parts of names; all without.
    pub words: Vec<String>,
}

/// One entry of a table of stories.
#[macro_export]
macro_rules! story {
    ($start:ident, $function:ident) => {
        $crate::cluster::Story { name: stringify!($function), start: $crate::cluster::Start::$start, tell: $function }
    };
}

impl Start {
    /// The lab for it.
    #[must_use]
    pub fn shape(self) -> Shape {
        match self {
            Self::Five => Shape { managers: 3, workers: 2, swarm: true },
            Self::Loose => Shape { managers: 3, workers: 0, swarm: false },
        }
    }
}

/// Every story.
#[must_use]
pub fn all() -> Vec<Story> {
    let parts: &[&[Story]] = &[
        spread::STORIES,
        secrets::STORIES,
        jobs::STORIES,
        logs::STORIES,
        loss::STORIES,
        failover::STORIES,
        roles::STORIES,
        authority::STORIES,
        join::STORIES,
    ];
    parts.concat()
}

/// Tells every story that is asked for.
///
/// # Errors
/// A lab cannot be made.
pub fn run(asked: &Asked) -> Result<Option<Tally>> {
    let mut tally = Tally::default();
    let wanted = |name: &str| asked.words.is_empty() || asked.words.iter().any(|word| name.contains(word));
    if asked.kind != Kind::Reference {
        itself::check(&asked.program, wanted, &mut tally);
    }
    for start in [Start::Five, Start::Loose] {
        let stories: Vec<Story> =
            all().into_iter().filter(|story| story.start == start && wanted(story.name)).collect();
        if !stories.is_empty() {
            tell_all(asked, start, &stories, &mut tally)?;
        }
    }
    Ok(Some(tally))
}

fn tell_all(asked: &Asked, start: Start, stories: &[Story], tally: &mut Tally) -> Result<()> {
    let make = || Lab::up(&asked.program, &asked.kind, &start.shape());
    let begin = Instant::now();
    let mut lab = make()?;
    println!("a lab of {} is up after {:.1} s", lab.nodes().count(), begin.elapsed().as_secs_f32());
    for (number, story) in stories.iter().enumerate() {
        let (outcome, healed) = tell(&lab, story, number, tally);
        if !outcome || !healed {
            println!("{}", lab.log_tails(6));
        }
        if !healed && number + 1 < stories.len() {
            drop(lab);
            lab = make()?;
        }
    }
    let begin = Instant::now();
    crate::harness::report(tally, "a lab that goes down leaves nothing behind", begin, &lab.down());
    Ok(())
}

/// Tells one story; whether it went well, and whether the lab is as before.
fn tell(lab: &Lab, story: &Story, number: usize, tally: &mut Tally) -> (bool, bool) {
    let cluster = Cluster::new(lab, format!("cl{}x{number}", std::process::id()));
    let begin = Instant::now();
    let told = catch_unwind(AssertUnwindSafe(|| (story.tell)(&cluster)));
    let told = told.unwrap_or_else(|_| Err(Failure::wrong("panicked")));
    let healed = match story.start {
        Start::Five => cluster.heal(),
        Start::Loose => cluster.disband(),
    };
    let whole = healed.is_ok();
    let outcome = told.and(healed.map_err(|error| Failure::wrong(format!("afterwards: {error}"))));
    crate::harness::report(tally, story.name, begin, &outcome);
    (!matches!(outcome, Err(Failure::Wrong(_))), whole)
}
