//! `--security-opt`. Pure.

use crate::error::{Error, Result};

/// What the options ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// No program gives it more rights than it has.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// AppArmor profile; `None`: none named.
    pub apparmor: Option<String>,
}

/// Which seccomp profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The built-in one.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// This one, as JSON.
    Profile(String),
}

/// Reads the options.
///
/// # Errors
/// 400 for one that is none, 501 for one that is not there yet.
pub fn parse(options: &[String], apparmor_there: bool) -> Result<Security> {
    let mut security = Security::default();
    for option in options {
        let invalid = || Error::invalid(format!("invalid --security-opt 2: {option:?}"));
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some(pair) => pair,
            None if option == "no-new-privileges" => ("no-new-privileges", "true"),
            None => return Err(Error::invalid(format!("invalid --security-opt 1: {option:?}"))),
        };
        match key {
            "no-new-privileges" => {
                security.no_new_privileges = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(invalid()),
                }
            }
            "seccomp" => {
                security.seccomp = match value {
                    "unconfined" => Seccomp::Unconfined,
                    "builtin" => Seccomp::Default,
                    profile => Seccomp::Profile(profile.to_owned()),
                }
            }
            "apparmor" => match value {
                "unconfined" => security.apparmor = Some(value.to_owned()),
                _ if apparmor_there => security.apparmor = Some(value.to_owned()),
                _ => {
                    return Err(Error::invalid(format!(
                        "invalid --security-opt 2: {option:?}: AppArmor is not enabled on this host"
                    )));
                }
            },
            "label" if value == "disable" => {}
            "label" => return Err(Error::unsupported("the security option \"label\" (SELinux)")),
            "writable-cgroups" | "systempaths" => {
                return Err(Error::unsupported(format!("the security option {key:?}")));
            }
            _ => return Err(invalid()),
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Security> {
        parse(&options.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), false)
    }

    #[test]
    fn options_are_read() {
        assert!(of(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(!of(&["no-new-privileges:false"]).unwrap().no_new_privileges);
        assert_eq!(of(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(of(&["seccomp={\"a\":1}"]).unwrap().seccomp, Seccomp::Profile("{\"a\":1}".into()));
        assert_eq!(of(&["apparmor=unconfined", "label=disable"]).unwrap().apparmor.as_deref(), Some("unconfined"));
    }

    #[test]
    fn options_that_cannot_be_honoured_are_refused() {
        for (option, part) in [
            ("nope", "invalid --security-opt 1: \"nope\""),
            ("a=b", "invalid --security-opt 2: \"a=b\""),
            ("apparmor=mine", "AppArmor is not enabled on this host"),
            ("label=type:x", "not supported"),
        ] {
            assert!(of(&[option]).unwrap_err().to_string().contains(part), "{option}");
        }
    }
}
