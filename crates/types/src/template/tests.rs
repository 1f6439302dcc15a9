use super::*;
use crate::spec::{MountType, VolumeDriver, VolumeOptions};

fn context() -> Context {
    let labels = [("tier".to_owned(), "gold".to_owned()), ("com.example/x".to_owned(), "y".to_owned())].into();
    let spec = ServiceSpec { name: "web".into(), labels, ..ServiceSpec::default() };
    Context { slot: "3".into(), ..Context::sample(&spec) }
}

fn expanded(text: &str) -> String {
    expand_text(text, &context()).unwrap_or_else(|e| e.to_string())
}

#[test]
fn every_documented_field_is_there() {
    for (text, value) in [
        ("{{.Service.ID}}", "serviceID"),
        ("{{.Service.Name}}", "web"),
        ("{{.Service.Labels}}", "map[com.example/x:y tier:gold]"),
        ("{{.Service.Labels.tier}}", "gold"),
        ("{{index .Service.Labels \"com.example/x\"}}", "y"),
        ("{{index .Service.Labels \"absent\"}}", ""),
        ("{{.Node.ID}}", "nodeID"),
        ("{{.Node.Hostname}}", "nodeHostname"),
        ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64"),
        ("{{.Task.ID}}", "taskID"),
        ("{{.Task.Name}}", "web.1.taskID"),
        ("{{ .Task.Slot }}", "3"),
    ] {
        assert_eq!(expanded(text), value, "{text}");
    }
}

#[test]
fn text_functions_pipes_and_conditions_work_as_in_go() {
    for (text, value) in [
        ("plain } text {", "plain } text {"),
        ("{{join \"-\" .Service.Name .Task.Slot}}", "web-3"),
        ("{{.Task.Slot | join \"-\" .Service.Name}}", "web-3"),
        ("{{print .Service.Name `x` 1 2}}", "webx1 2"),
        ("{{print (join \".\" \"a\" \"b\") \"\\\"}}\"}}", "a.b\"}}"),
        ("{{len .Service.Name}}", "3"),
        ("a {{- /* trims */ -}} b", "ab"),
        ("a {{- .Task.Slot -}} b", "a3b"),
        ("a{{/* nothing */}}b", "ab"),
        ("{{if eq .Task.Slot \"1\" \"3\"}}yes{{else}}no{{end}}!", "yes!"),
        ("{{if ne .Task.Slot \"3\"}}a{{else if and true .Service.Name}}b{{else}}c{{end}}", "b"),
        ("{{if not .Service.Labels}}none{{end}}", ""),
    ] {
        assert_eq!(expanded(text), value, "{text}");
    }
}

#[test]
fn what_is_not_there_or_not_a_template_is_an_error_that_names_it() {
    let at = "template: expansion:1: executing \"expansion\" at";
    for (text, error) in [
        ("{{.Foo}}", format!("{at} <.Foo>: can't evaluate field Foo in type template.Context")),
        ("{{.Task.Foo}}", format!("{at} <.Task.Foo>: can't evaluate field Foo in type template.Task")),
        ("{{.Task.ID.X}}", format!("{at} <.Task.ID.X>: can't evaluate field X in type string")),
        ("{{.Service.Labels.no}}", format!("{at} <.Service.Labels.no>: map has no entry for key \"no\"")),
        ("{{join}}", format!("{at} <join>: wrong number of args for join: got 0")),
        ("{{join \"-\" 1}}", format!("{at} <join>: wrong type of argument for join")),
        (
            "{{.Task.ID 1}}",
            "template: expansion:1: executing \"expansion\": can't give argument to non-function".into(),
        ),
        ("{{.Task.ID", "template: expansion:1: unclosed action".into()),
        ("{{\"a}}", "template: expansion:1: unterminated quoted string".into()),
        ("{{}}", "template: expansion:1: missing value for command".into()),
        ("{{.Task.ID |}}", "template: expansion:1: missing value for command".into()),
        ("{{(.Task.ID}}", "template: expansion:1: unclosed action".into()),
        ("{{.Task.ID)}}", "template: expansion:1: unexpected \")\" in command".into()),
        ("{{end}}", "template: expansion:1: unexpected {{end}}".into()),
        ("{{if .Task.ID}}", "template: expansion:1: unexpected EOF".into()),
        ("{{foo 1}}", "template: expansion:1: function \"foo\" not defined".into()),
        (
            "{{range .Service.Labels}}{{end}}",
            "template: expansion:1: \"range\" is not supported by Shoal in service templates".into(),
        ),
        ("{{$x}}", "template: expansion:1: \"$x\" is not supported by Shoal in service templates".into()),
    ] {
        assert_eq!(expanded(text), error, "{text}");
    }
}

#[test]
fn env_values_mounts_volume_options_and_the_host_name_are_expanded_and_nothing_else() {
    let slot = "{{.Task.Slot}}".to_owned();
    let options = VolumeOptions {
        labels: [("l".to_owned(), slot.clone())].into(),
        driver_config: Some(VolumeDriver { name: slot.clone(), options: [("o".to_owned(), slot.clone())].into() }),
        ..VolumeOptions::default()
    };
    let spec = ContainerSpec {
        image: slot.clone(),
        args: vec![slot.clone()],
        env: vec![format!("A={slot}={slot}"), slot.clone()],
        hostname: format!("h{slot}"),
        mounts: vec![Mount {
            r#type: MountType::Volume,
            source: format!("v{slot}"),
            target: format!("/{slot}"),
            volume_options: Some(options),
            ..Mount::default()
        }],
        ..ContainerSpec::default()
    };
    let out = expand(&spec, &context()).unwrap();
    assert_eq!((&*out.image, &out.args[0], &*out.hostname), (&*slot, &slot, "h3"));
    assert_eq!(out.env, ["A=3=3".to_owned(), slot.clone()]);
    let mount = &out.mounts[0];
    assert_eq!((&*mount.source, &*mount.target), ("v3", "/3"));
    let volume = mount.volume_options.as_ref().unwrap();
    let driver = volume.driver_config.as_ref().unwrap();
    assert_eq!((&*volume.labels["l"], &*driver.options["o"], &driver.name), ("3", "3", &slot));
}

#[test]
fn an_error_says_which_part_it_is_in() {
    let bad = "{{.X}}".to_owned();
    let error = |spec: ContainerSpec| expand(&spec, &context()).unwrap_err().to_string();
    let env = error(ContainerSpec { env: vec![format!("A={bad}")], ..ContainerSpec::default() });
    assert!(env.starts_with("expanding env failed: template: "), "{env}");
    let mount = Mount { source: bad.clone(), ..Mount::default() };
    let mounts = error(ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() });
    assert!(mounts.starts_with("expanding mounts failed: template: "), "{mounts}");
    let hostname = error(ContainerSpec { hostname: bad, ..ContainerSpec::default() });
    assert!(hostname.starts_with("expanding hostname failed: template: "), "{hostname}");
}

struct Own;
impl Lookup for Own {
    fn secret(&self, target: &str) -> Result<String, String> {
        if target == "pass" { Ok("s3cr3t".into()) } else { Err(format!("secret target {target} not found")) }
    }
    fn config(&self, target: &str) -> Result<String, String> {
        if target == "port" { Ok("80".into()) } else { Err(format!("config target {target} not found")) }
    }
    fn env(&self, name: &str) -> String {
        if name == "MODE" { "fast".into() } else { String::new() }
    }
}

#[test]
fn contents_speak_of_what_their_task_has_and_specs_do_not() {
    let text = "{{secret \"pass\"}}@{{.Service.Name}}:{{config `port`}} {{env \"MODE\"}}{{env \"NONE\"}}\n";
    assert_eq!(expand_payload(text, &context(), &Own).unwrap(), "s3cr3t@web:80 fast\n");
    let refused = expand_payload("{{secret \"other\"}}", &context(), &Own).unwrap_err().to_string();
    assert!(refused.ends_with("error calling secret: secret target other not found"), "{refused}");
    assert_eq!(expanded("{{secret \"pass\"}}"), "template: expansion:1: function \"secret\" not defined");
}
