//! The `nft` program: it loads our table at start, and again where another program removed it.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::error::KernelError;

/// Runs one transaction.
pub fn run(program: &Path, script: &str) -> Result<(), KernelError> {
    let missing = |source| KernelError::NoNft { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    // a program that ends before it has read all says why on its standard error
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return written.map_err(missing);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("failed without a word");
    Err(KernelError::Nft(first.trim().to_owned()))
}

/// The chains of other programs that drop forwarded packets unless told otherwise, as `family table chain`.
pub fn dropping_chains(program: &Path, ours: &str) -> Result<Vec<String>, KernelError> {
    let output = Command::new(program).args(["-j", "list", "chains"]).output();
    let output = output.map_err(|source| KernelError::NoNft { program: program.to_owned(), source })?;
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| KernelError::Garbled { step: "list firewall chains".to_owned(), detail: error.to_string() })?;
    let chains = listing["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("chain"));
    let foreign =
        chains.filter(|chain| chain["table"] != ours && chain["hook"] == "forward" && chain["policy"] == "drop");
    let word = |chain: &serde_json::Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    Ok(foreign.map(|chain| ["family", "table", "name"].map(|key| word(chain, key)).join(" ")).collect())
}
