//! Health checks.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, health_goes_from_starting_to_healthy_to_unhealthy_and_back),
    case!(Engine, a_check_that_takes_too_long_fails),
    case!(Engine, the_last_five_checks_are_kept),
    case!(Engine, failures_in_the_start_period_do_not_count),
    case!(Engine, a_health_check_can_be_turned_off),
    case!(Engine, a_stopped_container_is_not_checked),
    case!(Engine, health_shows_in_lists_and_events),
    case!(Engine, checks_run_as_the_container_does),
];

const BRIEF: u64 = 200_000_000;

fn health(cx: &Cx<'_>, id: &str) -> Result<Value> {
    Ok(cx.inspect(id)?["State"]["Health"].clone())
}

fn wait_health(cx: &Cx<'_>, id: &str, wanted: &str) -> Result<Value> {
    cx.until(&format!("it is {wanted}"), || {
        let health = health(cx, id)?;
        ensure!(health["Status"] == wanted, "{health}");
        Ok(health)
    })
}

fn checked(test: &str, more: Value) -> Value {
    let mut check = json!({"Test": ["CMD-SHELL", test], "Interval": BRIEF, "Retries": 2});
    crate::cx::merge(&mut check, more);
    json!({"Cmd": ["sleep", "1000"], "Healthcheck": check})
}

fn health_goes_from_starting_to_healthy_to_unhealthy_and_back(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", checked("test -e /tmp/well && echo fine", json!({"Retries": 3, "Interval": 500_000_000})))?;
    let first = health(cx, &id)?;
    ensure!(first["Status"] == "starting" || first["FailingStreak"].as_u64() >= Some(3), "at first: {first}");
    cx.exec(&id, &["touch", "/tmp/well"], json!({}))?;
    let healthy = wait_health(cx, &id, "healthy")?;
    same!(healthy["FailingStreak"], 0, "failing streak");
    cx.exec(&id, &["rm", "/tmp/well"], json!({}))?;
    let ill = wait_health(cx, &id, "unhealthy")?;
    ensure!(ill["FailingStreak"].as_u64() >= Some(3), "{ill}");
    cx.exec(&id, &["touch", "/tmp/well"], json!({}))?;
    wait_health(cx, &id, "healthy")?;
    same!(cx.inspect(&id)?["State"]["Running"], true, "being unhealthy ends nothing");
    Ok(())
}

fn a_check_that_takes_too_long_fails(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", checked("sleep 30", json!({"Timeout": 300_000_000, "Retries": 1})))?;
    let ill = wait_health(cx, &id, "unhealthy")?;
    let last = ill["Log"].as_array().and_then(|log| log.last()).cloned().unwrap_or_default();
    same!(last["ExitCode"], -1, "exit code");
    ensure!(text(&last["Output"]).contains("Health check exceeded timeout (300ms)"), "{last}");
    cx.until("nothing of the check is left", || {
        let left = cx.exec(&id, &["sh", "-c", "ps | grep -c '[s]leep 30'"], json!({}))?.1.out;
        // one may be under way
        ensure!(left.trim().parse::<u32>().unwrap_or(99) <= 2, "{left} checks run");
        Ok(())
    })
}

fn the_last_five_checks_are_kept(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", checked("echo said; exit 3", json!({"Retries": 100, "Interval": 100_000_000})))?;
    let health = cx.until("seven checks have failed", || {
        let health = health(cx, &id)?;
        ensure!(health["FailingStreak"].as_u64() >= Some(7), "{health}");
        Ok(health)
    })?;
    let log = health["Log"].as_array().cloned().unwrap_or_default();
    same!(log.len(), 5, "kept results");
    for result in &log {
        same!((result["ExitCode"].as_i64(), text(&result["Output"])), (Some(3), "said\n".to_owned()), "result");
        ensure!(text(&result["Start"]) < text(&result["End"]), "{result}");
    }
    Ok(())
}

fn failures_in_the_start_period_do_not_count(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", checked("test -e /tmp/well", json!({"StartPeriod": 60_000_000_000_u64, "Retries": 1})))?;
    cx.until("checks have failed", || {
        let log = health(cx, &id)?["Log"].as_array().map_or(0, Vec::len);
        ensure!(log >= 4, "{log} results");
        Ok(())
    })?;
    same!(health(cx, &id)?["Status"], "starting", "status");
    cx.exec(&id, &["touch", "/tmp/well"], json!({}))?;
    wait_health(cx, &id, "healthy")?;
    // the first success ends the period
    cx.exec(&id, &["rm", "/tmp/well"], json!({}))?;
    wait_health(cx, &id, "unhealthy").map(drop)
}

fn a_health_check_can_be_turned_off(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Cmd": ["sleep", "1000"], "Healthcheck": {"Test": ["NONE"]}}))?;
    let health = health(cx, &id)?;
    ensure!(health.is_null() || health["Status"] == "none", "{health}");
    let status = cx.engine.list("/containers/json", &json!({"id": [id]}))?[0]["Status"].clone();
    ensure!(!text(&status).contains("health"), "{status}");
    Ok(())
}

fn a_stopped_container_is_not_checked(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", checked("true", json!({})))?;
    wait_health(cx, &id, "healthy")?;
    cx.act(&format!("/containers/{id}/stop"))?.status(204)?;
    same!(health(cx, &id)?["Status"], "unhealthy", "status when stopped");
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    wait_health(cx, &id, "healthy").map(drop)
}

fn health_shows_in_lists_and_events(cx: &Cx<'_>) -> Result<()> {
    let mut events = cx.events(&json!({"container": [cx.name("c")], "event": ["health_status"]}))?;
    let id = cx.run("c", checked("test -e /tmp/well", json!({"Retries": 2})))?;
    let shown =
        || -> Result<String> { Ok(text(&cx.engine.list("/containers/json", &json!({"id": [id]}))?[0]["Status"])) };
    wait_health(cx, &id, "unhealthy")?;
    ensure!(shown()?.ends_with("(unhealthy)"), "{}", shown()?);
    same!(
        cx.engine.list("/containers/json", &json!({"health": ["unhealthy"], "id": [id]}))?.len(),
        1,
        "found by health"
    );
    same!(
        cx.engine.list("/containers/json", &json!({"health": ["healthy"], "id": [id]}))?.len(),
        0,
        "found by the wrong health"
    );
    cx.exec(&id, &["touch", "/tmp/well"], json!({}))?;
    wait_health(cx, &id, "healthy")?;
    ensure!(shown()?.ends_with("(healthy)"), "{}", shown()?);
    for wanted in ["health_status: unhealthy", "health_status: healthy"] {
        let event: Value = serde_json::from_str(&events.line()?.unwrap_or_default())?;
        same!(event["Action"], wanted, "event");
    }
    Ok(())
}

fn checks_run_as_the_container_does(cx: &Cx<'_>) -> Result<()> {
    let mut spec = checked("echo $A $(id -u) $PWD", json!({}));
    crate::cx::merge(&mut spec, json!({"Env": ["A=1"], "User": "405", "WorkingDir": "/tmp"}));
    let id = cx.run("c", spec)?;
    let health = wait_health(cx, &id, "healthy")?;
    same!(text(&health["Log"][0]["Output"]), "1 405 /tmp\n", "output");
    let direct = json!({"Cmd": ["sleep", "1000"], "Healthcheck": {"Test": ["CMD", "echo", "$A"], "Interval": BRIEF}});
    let id = cx.run("d", direct)?;
    same!(text(&wait_health(cx, &id, "healthy")?["Log"][0]["Output"]), "$A\n", "output without a shell");
    Ok(())
}
