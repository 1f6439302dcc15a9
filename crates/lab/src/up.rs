//! `lab up`: the whole lab, or nothing of it. `lab load`: images for every node.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use http::Method;

use crate::args::Plan;
use crate::client::{self, Body, call};
use crate::error::LabError;
use crate::process::{self, Process, State};
use crate::record::{Lab, Node};
use crate::{down, swarm, wiring};

/// How long an engine may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How long it may take to load an archive.
const LOAD: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(20);

/// Makes a lab.
pub fn up(name: &str, plan: &Plan) -> Result<(), LabError> {
    if plan.managers == 0 && !plan.no_swarm {
        return Err(LabError::Empty);
    }
    let start = Instant::now();
    let mut lab = Lab::plan(name, plan.managers, plan.workers, plan.subnet, plan.engine.clone())?;
    lab.claim(plan.dir.as_deref())?;
    match make(&lab, !plan.no_swarm) {
        Ok(()) => {
            explain(&lab, plan, start.elapsed());
            Ok(())
        }
        Err(error) => match down::down(&lab) {
            Ok(()) => Err(error),
            Err(undo) => Err(LabError::AndUndo(Box::new(error), Box::new(undo))),
        },
    }
}

fn make(lab: &Lab, one_swarm: bool) -> Result<(), LabError> {
    wiring::make(lab)?;
    let nodes: Vec<&Node> = lab.nodes.iter().collect();
    start(lab, &nodes)?;
    if one_swarm { client::run(swarm::make(lab)) } else { Ok(()) }
}

/// Starts engines and waits until all of them answer. One that runs is left alone.
pub fn start(lab: &Lab, nodes: &[&Node]) -> Result<(), LabError> {
    let mut started = Vec::new();
    for node in nodes {
        let running = Process::load(lab, node).filter(|process| process.state() != State::Gone);
        started.push((*node, running.map_or_else(|| process::start(lab, node), Ok)?));
    }
    client::run(async {
        let waits = started.into_iter().map(|(node, process)| until_it_answers(lab, node, process));
        try_join_all(waits).await.map(drop)
    })
}

async fn until_it_answers(lab: &Lab, node: &Node, process: Process) -> Result<(), LabError> {
    let end = Instant::now() + START;
    let socket = lab.socket(node.number);
    let failed = |what| {
        let log = process::log(lab, node);
        LabError::Engine { node: node.number, what, tail: process::tail(&log), log }
    };
    loop {
        if call(&socket, Method::GET, "/_ping", Body::Empty, START).await.is_ok() {
            return Ok(());
        }
        match process.state() {
            State::Gone => return Err(failed("ended")),
            _ if Instant::now() > end => return Err(failed("does not answer")),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Loads archives into every engine.
pub fn load(lab: &Lab, files: &[PathBuf]) -> Result<(), LabError> {
    files.iter().try_for_each(|file| load_one(lab, file))
}

fn load_one(lab: &Lab, file: &Path) -> Result<(), LabError> {
    let archive = hyper::body::Bytes::from(fs::read(file).map_err(LabError::file(file))?);
    let load = |node: &Node| {
        let (socket, body, number) = (lab.socket(node.number), Body::Archive(archive.clone()), node.number);
        async move {
            let answer = call(&socket, Method::POST, "/images/load?quiet=1", body, LOAD).await;
            answer.map(drop).map_err(|source| LabError::Call { node: number, step: "load an image", source })
        }
    };
    client::run(try_join_all(lab.nodes.iter().map(load))).map(drop)
}

fn explain(lab: &Lab, plan: &Plan, took: Duration) {
    let what = if plan.no_swarm {
        format!("{} engines, in no swarm", lab.nodes.len())
    } else {
        format!("one swarm, managers {}, workers {}", plan.managers, plan.workers)
    };
    println!("lab \"{}\" is up after {:.1} s: {what}", lab.name, took.as_secs_f32());
    let host = format!("DOCKER_HOST=unix://{} docker node ls", lab.socket(1).display());
    let lines = [
        (lab.command("ls"), "nodes, roles, engines, cables"),
        (lab.command("load IMAGE.tar"), "an image for every node: there is no way out to a registry"),
        (lab.command("exec 1 docker node ls"), "a command in node 1; without a command a shell"),
        (host, "the same from outside"),
        (lab.command("cut 2"), "pull its cable; 'mend 2' plugs it in"),
        (lab.command("kill 2"), "kill its engine; 'start 2' starts it; also stop, pause, resume"),
        (lab.command("down"), "remove everything"),
    ];
    let width = lines.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    for (command, why) in lines {
        println!("  {command:<width$}  {why}");
    }
}
