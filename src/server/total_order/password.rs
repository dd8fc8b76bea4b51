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

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};

use crate::network::ConnId;

/// Random bytes: a salt, or a token.
pub type Random = [u8; 16];

/// The memory that passwords are hashed in: 19 MiB once it was used, kept for the next one. Asked for anew each time, it left a hole
/// that the next one did not fit into: two hundred logins made a server of 2 GiB.
#[derive(Default)]
pub struct HashMemory(Vec<Block>);

impl HashMemory {
    /// What `password` hashes to; `None` when `params` or `salt` are not allowed.
    fn hash(&mut self, password: &str, salt: &[u8], params: Params) -> Option<Output> {
        self.0.resize(self.0.len().max(params.block_count()), Block::new());
        let blocks = &mut self.0[..params.block_count()];
        let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::default(), params);
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, blocks).ok()?;
        Output::new(&hash).ok()
    }
}

/// What `password` is checked against from now on.
pub fn verifier_of(password: &str, salt: &Random, memory: &mut HashMemory) -> String {
    let verifier = try_verifier_of(password, salt, memory);
    // It fails for passwords of gigabytes and salts of other lengths only.
    verifier.expect("a frame's worth of password is hashed").to_string()
}

fn try_verifier_of(password: &str, salt: &Random, memory: &mut HashMemory) -> Option<PasswordHash> {
    let params = Params::default();
    Some(PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::default().into()),
        params: ParamsString::try_from(&params).ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(memory.hash(password, salt, params)?),
    })
}

/// Whether `password` is the one that `verifier` was made of.
pub fn is_right(password: &str, verifier: &str, memory: &mut HashMemory) -> bool {
    let Ok(known) = PasswordHash::new(verifier) else { return false };
    let Ok(params) = Params::try_from(&known) else { return false };
    let (Some(salt), Some(hash)) = (known.salt, known.hash) else { return false };
    // The comparison takes the same time wherever they differ.
    known.algorithm == ARGON2ID_IDENT && memory.hash(password, &salt, params) == Some(hash)
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
    pub fn run(self, salt: &Random, token: &Random, memory: &mut HashMemory) -> Hashed {
        let token = hex(token);
        let proof = if let Some(verifier) = &self.verifier {
            is_right(&self.password, verifier, memory).then_some(Proof { token, verifier: None })
        } else {
            let verifier = Some(verifier_of(&self.password, salt, memory));
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
        let memory = &mut HashMemory::default();
        let verifier = verifier_of("open sesame", &[7; 16], memory);
        assert!(verifier.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{verifier}");
        assert!(!verifier.contains("sesame"));
        assert!(is_right("open sesame", &verifier, memory));
        assert!(!is_right("open sesam", &verifier, memory) && !is_right("", &verifier, memory));
        assert!(!is_right("open sesame", "no verifier", memory));
        assert_eq!(memory.0.len(), 19 * 1024, "used again");
        assert_ne!(verifier, verifier_of("open sesame", &[8; 16], memory), "another salt");
    }

    #[test]
    fn a_job_proves_registers_or_refuses() {
        let memory = &mut HashMemory::default();
        let new = job("p", None, true).run(&[1; 16], &[2; 16], memory).proof.unwrap();
        assert_eq!(new.token, "02".repeat(16));
        let verifier = new.verifier.unwrap();
        let known = job("p", Some(&verifier), true).run(&[3; 16], &[4; 16], memory).proof.unwrap();
        assert!(known.verifier.is_none());
        assert!(job("q", Some(&verifier), true).run(&[3; 16], &[4; 16], memory).proof.is_none());
        assert!(job("p", None, false).run(&[3; 16], &[4; 16], memory).proof.is_none(), "closed");
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
