//! Passwords and tokens: what is kept of them, and how they are checked.
//!
//! ```text
//!   password ── Argon2id, random salt, 19 MiB, tens of milliseconds ──▶ verifier   replicated, one a user name
//!   token    ── the same, 8 KiB, microseconds ───────────────────────▶ token hash  replicated, one a session
//! ```
//!
//! Neither is written down as it is, anywhere: a log that is stolen tells neither. A password is chosen by a
//! person and can be guessed, so each guess is made expensive; a token is 128 random bits, and a fast hash does.
//!
//! Everything here is a function of what it is given. Chance comes from the shell; so do the threads for the
//! expensive part, at most one hash per core at a time ([`crate::server::shell`]), outside the node's lock.
//!
//! Source: RFC 9106 (Argon2), the second recommendation scaled to 19 MiB as OWASP's cheat sheet does.

use std::fmt::{self, Write as _};

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::network::ConnId;

/// Random bytes: a salt, or a token.
pub type Random = [u8; 16];

/// What `password` is checked against from now on.
pub fn verifier_of(password: &str, salt: &Random) -> String {
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), salt);
    // It fails for passwords of gigabytes and salts of other lengths only.
    hash.expect("a frame's worth of password is hashed").to_string()
}

/// Whether `password` is the one that `verifier` was made of.
pub fn is_right(password: &str, verifier: &str) -> bool {
    Argon2::default().verify_password(password.as_bytes(), verifier).is_ok()
}

/// What `token` of `session` is checked against.
pub fn token_hash(session: &str, token: &str) -> String {
    let salt = format!("roundtable token {session}");
    let mut hash = [0; 32];
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).expect("the smallest cost is allowed");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::default(), params);
    let done = argon2.hash_password_into(token.as_bytes(), salt.as_bytes(), &mut hash);
    done.expect("a frame's worth of token is hashed");
    hex(&hash)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A password that is to be checked, on a thread that may take its time.
pub struct HashJob {
    /// Whose it is.
    pub(super) conn: ConnId,
    pub(super) password: String,
    /// What it is checked against; `None` when the user name has no account.
    pub(super) verifier: Option<String>,
    /// Whether a name without an account gets one.
    pub(super) registers: bool,
}

/// The outcome of a [`HashJob`].
#[derive(Debug)]
pub struct Hashed {
    /// Whose it is.
    pub(super) conn: ConnId,
    /// `None` when the password was wrong, or the name unknown.
    pub(super) proof: Option<Proof>,
}

/// What a right password leads to.
#[derive(Clone)]
pub(super) struct Proof {
    /// The session's token.
    pub(super) token: String,
    /// The new account's verifier; `None` when there is one already.
    pub(super) verifier: Option<String>,
}

impl HashJob {
    /// Hashes once, whatever comes of it: a wrong password and an unknown name take the same time.
    pub fn run(self, salt: &Random, token: &Random) -> Hashed {
        let token = hex(token);
        let proof = if let Some(verifier) = &self.verifier {
            is_right(&self.password, verifier).then_some(Proof { token, verifier: None })
        } else {
            let verifier = Some(verifier_of(&self.password, salt));
            self.registers.then_some(Proof { token, verifier })
        };
        Hashed { conn: self.conn, proof }
    }
}

impl fmt::Debug for HashJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashJob").field("conn", &self.conn).finish_non_exhaustive()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(password: &str, verifier: Option<&str>, registers: bool) -> HashJob {
        let verifier = verifier.map(str::to_string);
        HashJob { conn: ConnId(1), password: password.into(), verifier, registers }
    }

    #[test]
    fn a_password_is_right_when_it_is_the_one_of_the_verifier() {
        let verifier = verifier_of("open sesame", &[7; 16]);
        assert!(verifier.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{verifier}");
        assert!(!verifier.contains("sesame"));
        assert!(is_right("open sesame", &verifier));
        assert!(!is_right("open sesam", &verifier) && !is_right("", &verifier));
        assert!(!is_right("open sesame", "no verifier"));
        assert_ne!(verifier, verifier_of("open sesame", &[8; 16]), "another salt");
    }

    #[test]
    fn a_job_proves_registers_or_refuses() {
        let new = job("p", None, true).run(&[1; 16], &[2; 16]).proof.unwrap();
        assert_eq!(new.token, "02".repeat(16));
        let verifier = new.verifier.unwrap();
        let known = job("p", Some(&verifier), true).run(&[3; 16], &[4; 16]).proof.unwrap();
        assert!(known.verifier.is_none());
        assert!(job("q", Some(&verifier), true).run(&[3; 16], &[4; 16]).proof.is_none());
        assert!(job("p", None, false).run(&[3; 16], &[4; 16]).proof.is_none(), "closed");
    }

    #[test]
    fn a_token_is_of_one_session() {
        let hash = token_hash("s", "00ff");
        assert_eq!(hash, token_hash("s", "00ff"));
        assert_ne!(hash, token_hash("t", "00ff"));
        assert_ne!(hash, token_hash("s", "00fe"));
    }

    #[test]
    fn secrets_do_not_show() {
        let text = format!(
            "{:?} {:?}",
            job("hunter2", Some("v"), true),
            Proof { token: "00ff".into(), verifier: None }
        );
        assert!(!text.contains("hunter2") && !text.contains("00ff"), "{text}");
    }
}
