//! [`Script`]: the Lua programs that run in the server, each known there by its hash.

use std::sync::LazyLock;

use redis::Cmd;

/// A program, and the hash by which a server knows it once it has run there.
pub(crate) struct Script {
    body: &'static str,
    hash: String,
}

impl Script {
    fn new(body: &'static str) -> Self {
        Script { body, hash: redis::Script::new(body).get_hash().to_owned() }
    }

    /// Runs it by its hash, or, the first time on a server, by its text.
    pub(crate) fn command(&self, loaded: bool, call: &Call) -> Cmd {
        let (name, program) =
            if loaded { ("EVALSHA", self.hash.as_str()) } else { ("EVAL", self.body) };
        let bytes = call.keys.iter().chain(&call.arguments).map(Vec::len).sum::<usize>();
        let mut command = Cmd::with_capacity(
            3 + call.keys.len() + call.arguments.len(),
            program.len() + bytes + 16,
        );
        command.arg(name).arg(program).arg(call.keys.len());
        for part in call.keys.iter().chain(&call.arguments) {
            command.arg(part.as_slice());
        }
        command
    }
}

/// One run of a program.
pub(crate) struct Call {
    pub(crate) script: &'static LazyLock<Script>,
    /// At least one; all of one slot.
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) arguments: Vec<Vec<u8>>,
}

impl Call {
    /// A run with these keys and arguments.
    pub(crate) fn new(
        script: &'static LazyLock<Script>,
        keys: Vec<Vec<u8>>,
        arguments: Vec<Vec<u8>>,
    ) -> Self {
        Call { script, keys, arguments }
    }
}

macro_rules! scripts {
    ($($name:ident $file:literal;)*) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file)));)*
    };
}

scripts! {
    APPLY "lua/apply.lua";
    GET "lua/get.lua";
    PAGE "lua/page.lua";
    SWEEP "lua/sweep.lua";
    LOOKUP "lua/lookup.lua";
    FILL "lua/fill.lua";
    RELEASE "lua/release.lua";
    FOLLOW "lua/follow.lua";
    INVALIDATE "lua/invalidate.lua";
    RESTART "lua/restart.lua";
    APPEND "lua/append.lua";
    REMOVE "lua/remove.lua";
    NEWS "lua/news.lua";
    CLAIM "lua/claim.lua";
    LEAVE "lua/leave.lua";
}
