//! `lswitch serve --print-user-data`: what a new machine on AWS does to become a switch, as a script for cloud-init.

use super::Serve;
use crate::cmd::settings::{find_secret, home, make_secret};
use crate::cmd::ui::{self, Ui};
use crate::cmd::{UsageError, certificate};
use crate::lambda::function::policy::{CERTIFICATE_PARAMETER, SECRET_PARAMETER, SWITCH_KEY};

/// What the script is about.
struct Switch<'a> {
    /// Where the executable is: `s3://BUCKET/KEY`.
    executable: &'a str,
    /// The port to listen at.
    port: u16,
    /// What `--memory` is given.
    memory: usize,
    /// Speak plain TCP.
    plaintext: bool,
}

/// Prints the script, and says what to do next. Secret and certificate are made if there are none, so that drivers here know them
/// already.
pub(super) fn print(serve: &Serve, store: &str, ui: &Ui) -> anyhow::Result<()> {
    if !store.starts_with("s3://") {
        let what = format!("--store {store}: the machine takes its executable from a store in S3");
        return Err(UsageError(what).into());
    }
    let port = serve.listen.rsplit_once(':').map(|(_, port)| port.parse());
    let Some(Ok(port @ 1..)) = port else {
        let what = format!("--listen {}: the switch needs a port", serve.listen);
        return Err(UsageError(what).into());
    };
    if find_secret()?.is_none() {
        let (_, path) = make_secret()?;
        ui.say(format!("made a secret in {}", path.display()));
    }
    let home = home()?;
    let fingerprint = match serve.plaintext {
        true => None,
        false => Some(certificate::own(ui)?.fingerprint()),
    };
    let executable = executable(store);
    ui::print(user_data(&Switch {
        executable: &executable,
        port,
        memory: serve.memory,
        plaintext: serve.plaintext,
    }))?;
    let put = |name: &str, file: &str| {
        let file = home.join(file);
        format!(
            "\n  aws ssm put-parameter --type SecureString --name {name} --value file://{}",
            file.display()
        )
    };
    let mut next = format!(
        "next, so that the machine finds what it needs:\n  aws s3 cp target/linux/lswitch {executable}    # \"make linux\" builds it"
    );
    // Whoever has it in a variable knows where.
    next += &put(SECRET_PARAMETER, "secret");
    if let Some(fingerprint) = fingerprint {
        next += &put(CERTIFICATE_PARAMETER, "switch.pem");
        next += &format!("\nfor drivers then: --switch ADDRESS:{port}#{fingerprint}");
    }
    ui.say(next);
    Ok(())
}

/// The key of the executable within the store.
fn executable(store: &str) -> String {
    format!("{}/{SWITCH_KEY}", store.trim_end_matches('/'))
}

/// The script. It holds no secret: the machine's role gets those from AWS's parameter store. Pure.
fn user_data(switch: &Switch) -> String {
    let Switch {
        executable,
        port,
        memory,
        plaintext,
    } = switch;
    let (certificate, wire) = match plaintext {
        true => (String::new(), "--plaintext"),
        false => (
            format!("parameter {CERTIFICATE_PARAMETER} > \"$HOME_FOLDER/switch.pem\"\n"),
            "--tls",
        ),
    };
    format!(
        r#"#!/bin/bash
# Made by lswitch {release}: this machine is a switch, as a service of systemd.
set -euo pipefail
umask 077
HOME_FOLDER=/var/lib/lswitch

parameter() {{
    aws ssm get-parameter --with-decryption --output text --query Parameter.Value --name "$1"
}}

id lswitch > /dev/null 2>&1 || useradd --system --home-dir "$HOME_FOLDER" --shell /sbin/nologin lswitch
mkdir -p "$HOME_FOLDER"
# A role that was just given is known only after some seconds.
for attempt in $(seq 30); do
    aws s3 cp {executable} /usr/local/bin/lswitch && break
    sleep 5
done
chmod 755 /usr/local/bin/lswitch
parameter {SECRET_PARAMETER} > "$HOME_FOLDER/secret"
{certificate}chown -R lswitch: "$HOME_FOLDER"

# Room for thousands of connections that come within a second, and for what is under way on each.
cat > /etc/sysctl.d/90-lswitch.conf <<'END'
net.core.somaxconn = 4096
net.ipv4.tcp_max_syn_backlog = 8192
net.core.rmem_max = 16777216
net.core.wmem_max = 16777216
net.ipv4.tcp_slow_start_after_idle = 0
END
sysctl --system > /dev/null

cat > /etc/systemd/system/lswitch.service <<'END'
[Unit]
Description=lswitch
Wants=network-online.target
After=network-online.target

[Service]
User=lswitch
Environment=LSWITCH_HOME=/var/lib/lswitch
ExecStart=/usr/local/bin/lswitch serve --listen 0.0.0.0:{port} --memory {memory} {wire}
LimitNOFILE=65536
Restart=on-failure
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/var/lib/lswitch

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --now lswitch
"#,
        release = crate::RELEASE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(plaintext: bool) -> String {
        user_data(&Switch {
            executable: &executable("s3://graphs/jobs/"),
            port: 7000,
            memory: 1 << 30,
            plaintext,
        })
    }

    #[test]
    fn it_starts_a_switch_with_tls_unless_told_otherwise() {
        let script = script(false);
        assert!(script.contains("aws s3 cp s3://graphs/jobs/switch/lswitch /usr/local/bin"));
        assert!(script.contains("serve --listen 0.0.0.0:7000 --memory 1073741824 --tls\n"));
        assert!(script.contains("/var/lib/lswitch") && script.contains("switch.pem"));
        let plain = super::tests::script(true);
        assert!(plain.contains("--plaintext\n") && !plain.contains("switch.pem"));
    }
}
