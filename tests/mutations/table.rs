//! The guards, and what their removal looks like.

/// What is to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// The simulator.
    Simulation,
    /// Worlds of two truths that follow each other.
    TwoTruths,
}

/// One guard that is removed.
pub(crate) struct Mutation {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// Where it stands.
    pub(crate) file: &'static str,
    /// Its text, which stands there once.
    pub(crate) text: &'static str,
    /// What stands there instead.
    pub(crate) replacement: &'static str,
    /// Why nothing can notice its removal, if that is so.
    pub(crate) redundant: Option<&'static str>,
    /// What notices.
    pub(crate) by: Trial,
}

/// A guard that must be noticed when it is gone.
const fn guard(
    name: &'static str,
    file: &'static str,
    text: &'static str,
    replacement: &'static str,
) -> Mutation {
    Mutation { name, file, text, replacement, redundant: None, by: Trial::Simulation }
}

/// A guard of two truths that follow each other.
const fn of_two_truths(guard: Mutation) -> Mutation {
    Mutation { by: Trial::TwoTruths, ..guard }
}

/// A guard that another one stands in for, with the reason.
const fn doubled(reason: &'static str, guard: Mutation) -> Mutation {
    Mutation { redundant: Some(reason), ..guard }
}

/// All of them, in the order in which a write travels.
pub(crate) const MUTATIONS: &[Mutation] = &[
    guard(
        "idempotency-ledger",
        "sources/memory/src/truth.rs",
        "    let outcome = state.outcomes.get(&idempotency.key)?;",
        "    let outcome = state.outcomes.get(&idempotency.key).filter(|_| false)?;",
    ),
    guard(
        "idempotency-fingerprint",
        "sources/memory/src/truth.rs",
        "outcome.fingerprint != idempotency.fingerprint",
        "false",
    ),
    guard(
        "unit-rolled-back",
        "sources/memory/src/truth.rs",
        r#"                    roll_back(state, replaced);
"#,
        r#"                    let _ = (&replaced, roll_back);
"#,
    ),
    guard(
        "condition-on-version",
        "crates/core/src/write.rs",
        "Condition::Version(expected) if expected == version => Ok(()),",
        "Condition::Version(_) => Ok(()),",
    ),
    guard(
        "acknowledged-when-followers-have-it",
        "crates/engine/src/write/acknowledge.rs",
        "                delivery.wait_applied(position).await;",
        "                let _ = position;",
    ),
    guard(
        "refused-is-not-acknowledged",
        "crates/engine/src/write/acknowledge.rs",
        "if refused { Standing::Hopeless } else { Standing::Has }",
        "if refused { Standing::Has } else { Standing::Has }",
    ),
    guard(
        "acknowledged-by-so-many",
        "crates/policy/src/ack.rs",
        "Ack::Count(count) => demanded.count().min(count - 1),",
        "Ack::Count(count) => demanded.count().min(count - 1).min(1),",
    ),
    guard(
        "adaptive-waits-before-it-demands-more",
        "crates/policy/src/adaptive.rs",
        "        if since(better) < wait {",
        "        if since(better) < Duration::ZERO {",
    ),
    guard(
        "log-truncated-is-told",
        "sources/memory/src/truth.rs",
        "if after < log.trimmed {",
        "if false {",
    ),
    guard(
        "apply-version-check",
        "sources/memory/src/follower.rs",
        "if held.is_some_and(|v| v > change.position || (v == change.position && !copied)) {",
        "if held.is_some_and(|_| false) {",
    ),
    guard(
        "apply-remembers-deletions",
        "sources/memory/src/store.rs",
        ".or_else(|| self.deleted.get(key).copied())",
        "",
    ),
    guard(
        "checkpoint-compare-and-set",
        "sources/memory/src/follower.rs",
        "            && advance.from != self.checkpoint",
        r#"            && advance.from != self.checkpoint
            && false"#,
    ),
    doubled(
        "the engine asks no follower before its first copy is complete; the position says so to other users of the contract",
        guard(
            "incomplete-copy-claims-no-position",
            "sources/memory/src/store.rs",
            "Checkpoint { position, backfill: None, .. }",
            "Checkpoint { position, .. }",
        ),
    ),
    guard(
        "checkpoint-after-all-settled",
        "crates/engine/src/delivery/session.rs",
        "let settled = outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale));",
        "let settled = true;",
    ),
    guard(
        "cascade-streams-what-is-before",
        "crates/engine/src/delivery/stream.rs",
        "            window.truncate(window.partition_point(|change| change.position <= limit));",
        "            let _ = limit;",
    ),
    guard(
        "cascade-copies-what-is-before",
        "crates/engine/src/delivery/copy.rs",
        "        self.comes_to(position).await?;",
        "",
    ),
    guard(
        "cascade-redelivers-what-is-before",
        "crates/engine/src/delivery/redeliver.rs",
        "        self.comes_to(position).await?;",
        "",
    ),
    guard(
        "cascade-refuses-what-is-refused-before",
        "crates/engine/src/delivery/before.rs",
        "match self.refused_before(change).and_then(|()| self.mapped(change)) {",
        "match self.mapped(change) {",
    ),
    guard(
        "dead-letter-before-passing",
        "crates/engine/src/delivery/session.rs",
        "                    self.set_aside(&mut session.letters, change, reason).await?;",
        "                    let _ = self.set_aside(&mut session.letters, change, reason).await;",
    ),
    guard(
        "dead-letter-superseded",
        "crates/engine/src/delivery/session.rs",
        r#"                self.forget_letter(&mut session.letters, &change.key.to_string()).await?;
            }
        }
        Ok(refused)"#,
        r#"            }
        }
        Ok(refused)"#,
    ),
    guard(
        "dead-letters-before-position",
        "crates/engine/src/delivery/session.rs",
        r#"        let letters = self.load_letters().await?;
        self.progress.saved_at(&saved);"#,
        r#"        self.progress.saved_at(&saved);
        let letters = self.load_letters().await?;"#,
    ),
    guard(
        "dead-letters-tried-again",
        "crates/engine/src/delivery/session.rs",
        r#"        self.retry_letters(&mut session).await?;
"#,
        "",
    ),
    guard(
        "checkpoint-of-another-log",
        "crates/engine/src/delivery/session.rs",
        "checkpoint.log == bounds.log && ",
        "",
    ),
    guard(
        "checkpoint-beyond-the-log",
        "crates/engine/src/delivery/session.rs",
        "(bounds.trimmed..=bounds.head).contains(&checkpoint.position)",
        "(Position::ZERO..=bounds.head).contains(&checkpoint.position)",
    ),
    guard(
        "follower-reset-before-copy",
        "crates/engine/src/delivery/session.rs",
        r#"        self.target.follower.reset(entity).await?;
"#,
        "",
    ),
    guard(
        "copy-begins-at-head",
        "crates/engine/src/delivery/session.rs",
        "self.begin_copy(None, bounds.head).await",
        "self.begin_copy(None, self.log.tail.head().plus(2)).await",
    ),
    guard(
        "nothing-applied-while-copying",
        "crates/engine/src/delivery/progress.rs",
        "checkpoint.backfill.is_none().then_some(reach)",
        "Some(reach)",
    ),
    guard(
        "idle-looks-at-the-follower",
        "crates/engine/src/delivery/session.rs",
        "if stored.as_ref() == Some(&session.saved) {",
        "if true {",
    ),
    guard(
        "copy-cursor",
        "crates/engine/src/delivery/copy.rs",
        "let backfill = last.map(ToString::to_string);",
        "let backfill = last.filter(|_| false).map(ToString::to_string);",
    ),
    guard(
        "copy-lanes-before-checkpoint",
        "crates/engine/src/delivery/copy.rs",
        "while goes_on || !under_way.is_empty() {",
        "while goes_on {",
    ),
    doubled(
        "what the stream has brought since has greater versions, and deletions are remembered while a copy is made",
        guard(
            "chunk-read-ahead-is-of-here",
            "crates/engine/src/delivery/copy.rs",
            "(Some(&key) == after && read == position).then_some(chunk)",
            "(Some(&key) == after || read == position).then_some(chunk)",
        ),
    ),
    guard(
        "copy-looks-at-what-is-left",
        "crates/engine/src/delivery/copy.rs",
        "let is_rest_empty = page.end && held.len() - before == found;",
        "let is_rest_empty = page.end || held.len() - before == found;",
    ),
    guard(
        "copy-removes-what-is-left",
        "crates/engine/src/delivery/copy.rs",
        "        changes.extend(held.map(|orphan| self.removal(&orphan.key, position)));",
        "        let _ = held;",
    ),
    guard(
        "copy-removes-in-between",
        "crates/engine/src/delivery/copy.rs",
        r#"                changes.push(self.removal(&orphan.key, position));
            }
            let mine"#,
        r#"                let _ = orphan;
            }
            let mine"#,
    ),
    guard(
        "removal-as-of-the-chunk",
        "crates/engine/src/delivery/copy.rs",
        r#"        Arc::new(Change {
            position,
"#,
        r#"        Arc::new(Change {
            position: position.plus(3),
"#,
    ),
    guard(
        "copy-obeys-where",
        "crates/engine/src/delivery/copy.rs",
        "changes.push(self.removal(&stored.key, stored.version));",
        "",
    ),
    guard(
        "stream-removes-what-where-excludes",
        "crates/engine/src/delivery/keeping.rs",
        r#"        change.replaced?;
"#,
        r#"        if change.image.is_some() {
            return None;
        }
"#,
    ),
    guard(
        "map-is-what-is-taken-in",
        "crates/engine/src/delivery/keeping.rs",
        "let image = Some(Arc::new(mapping.apply(&self.target.entity, image)?));",
        "let image = Some(Arc::clone(image)).filter(|_| !mapping.text().is_empty());",
    ),
    guard(
        "fold-keeps-the-last",
        "crates/engine/src/delivery/stream.rs",
        "last.insert(&change.key, n);",
        "last.entry(&change.key).or_insert(n);",
    ),
    guard(
        "repair-as-of-its-read",
        "crates/engine/src/delivery/redeliver.rs",
        "_ => self.removal(key, position),",
        "_ => self.removal(key, position.plus(3)),",
    ),
    guard(
        "tail-is-contiguous",
        "crates/engine/src/log/tail.rs",
        r#"                self.changes.clear();
                self.bytes = 0;"#,
        "",
    ),
    guard(
        "tail-knows-its-begin",
        "crates/engine/src/log/tail.rs",
        "checked_sub(first.as_u64())?).ok()?",
        "saturating_sub(first.as_u64())).ok()?",
    ),
    doubled(
        "a follower that the log has left behind is copied, so this guard saves work and no data",
        guard(
            "trim-waits-for-followers",
            "crates/engine/src/log/trim.rs",
            r#"        .min()
        .unwrap_or(bounds.head);"#,
            r#"        .max()
        .unwrap_or(bounds.head);"#,
        ),
    ),
    doubled(
        "the floor of a new life refuses every read from before its begin; the epoch says so earlier, and to callers",
        guard(
            "fill-epoch",
            "sources/memory/src/cache.rs",
            ".filter(|life| life.epoch == epoch)",
            "",
        ),
    ),
    guard("fill-floor", "sources/memory/src/recent.rs", "read < self.floor || last", "last"),
    guard(
        "fill-recent",
        "sources/memory/src/recent.rs",
        "last.is_some_and(|last| *last > read)",
        "last.is_some_and(|_| false)",
    ),
    doubled(
        "a newer entry came with a change after the read, and the recent changes refuse that read already",
        guard(
            "fill-never-goes-back",
            "sources/memory/src/cache.rs",
            r#"            cached.version > entry.version
                || ("#,
            "            (",
        ),
    ),
    doubled(
        "one process has one feed for a cache, which knows where it is; it is for nodes that share one",
        guard(
            "follow-compare-and-set",
            "sources/memory/src/cache.rs",
            "control.ended || applied < from",
            "control.ended",
        ),
    ),
    guard(
        "follow-updates-entries",
        "sources/memory/src/cache.rs",
        "let _ = self.entries.replace(place, entry_of(change, expires), true);",
        "let _ = (place, entry_of(change, expires));",
    ),
    guard(
        "follow-never-goes-back",
        "sources/memory/src/cache.rs",
        "cached.is_some_and(|cached| cached.version < change.position)",
        "cached.is_some()",
    ),
    guard(
        "fill-at-the-position-of-its-read",
        "crates/engine/src/read/get.rs",
        "let read: Position = answer.position;",
        "let read: Position = self.reading.serving.log.tail.head();",
    ),
    guard(
        "warmed-at-the-position-of-its-read",
        "crates/engine/src/cache/warm.rs",
        "let (position, epoch) = (answer.position, self.life.epoch);",
        "let (position, epoch) = (self.serving.log.tail.head(), self.life.epoch);",
    ),
    guard(
        "cache-needs-signs-of-life",
        "crates/engine/src/cache/mod.rs",
        "!self.down.load(Ordering::Acquire) && now < verified.plus(UNVERIFIED_MAX)",
        "now < verified.plus(UNVERIFIED_MAX * 1000)",
    ),
    guard(
        "cache-read-token",
        "crates/engine/src/read/get.rs",
        "lookup.applied.max(entry.version) >= self.needed()",
        "lookup.applied.max(entry.version) >= self.needed() || true",
    ),
    guard(
        "kept-page-until-a-change",
        "crates/engine/src/read/results.rs",
        "(changed <= read).then",
        "(changed <= read || true).then",
    ),
    guard(
        "written-through-as-of-its-change",
        "crates/engine/src/cache/mod.rs",
        "self.fill(declared, &change.key, stored, change.position, lookup.epoch).await;",
        "self.fill(declared, &change.key, stored, self.log.tail.head(), lookup.epoch).await;",
    ),
    guard(
        "read-position",
        "crates/engine/src/read/ask.rs",
        "request.consistency != Consistency::Eventual && at.position < request.token",
        "at.position < request.token && false",
    ),
    guard(
        "read-of-refused-record",
        "crates/engine/src/read/ask.rs",
        "if !self.keys.is_empty() && refused {",
        "if !self.keys.is_empty() && refused && false {",
    ),
    guard(
        "question-tells-of-refused-records",
        "crates/engine/src/read/ask.rs",
        "let refused = refused.0 || self.refused(answering) != refused;",
        "let refused = !self.keys.is_empty() && (refused.0 || self.refused(answering) != refused);",
    ),
    guard(
        "read-token-covers-what-was-shown",
        "crates/engine/src/read/get.rs",
        r#"        answer.token.merge(&self.token_of(shown));
"#,
        r#"        let _ = shown;
"#,
    ),
    guard(
        "stale-when-the-truth-is-silent",
        "crates/engine/src/read/ask.rs",
        "let unknown = stale || asked_in_vain || silent;",
        "let unknown = stale;",
    ),
    doubled(
        "the passenger looks at the position of the answer as well; this saves it a wait in vain",
        guard(
            "flight-is-late-enough",
            "crates/engine/src/read/flight.rs",
            r#"
            && flight.contains >= needed"#,
            "",
        ),
    ),
    guard(
        "shared-answer-is-late-enough",
        "crates/engine/src/read/get.rs",
        "Some(landed) if landed.position >= needed => Ok",
        "Some(landed) => Ok",
    ),
    guard(
        "quorum-counts-the-newest",
        "crates/engine/src/read/quorum.rs",
        "votes.into_iter().max_by_key(Vote::newest)",
        "votes.into_iter().min_by_key(Vote::newest)",
    ),
    guard(
        "quorum-is-complete",
        "crates/engine/src/read/quorum.rs",
        "if votes.len() < count {",
        "if votes.is_empty() {",
    ),
    guard(
        "follower-complete-before-it-answers",
        "crates/engine/src/read/serving.rs",
        "delivery.is_complete().then(|| delivery.applied())",
        "Some(delivery.applied())",
    ),
    guard(
        "verify-looks-again-at-moving-records",
        "crates/engine/src/verify/compare.rs",
        "let changed = before.as_ref().map(|s| s.version) != after.as_ref().map(|s| s.version);",
        "let changed = false;",
    ),
    guard(
        "verify-waits-for-the-follower",
        "crates/engine/src/verify/compare.rs",
        r#"        self.catch_up(position).await?;
        let held = self.follower.get(self.entity, &keys).await?.value;
        let after"#,
        r#"        let held = self.follower.get(self.entity, &keys).await?.value;
        let after"#,
    ),
    guard(
        "verify-compares-data",
        "crates/engine/src/verify/compare.rs",
        "(w.record != h.record).then_some(Divergence::Corrupt)",
        "None",
    ),
    of_two_truths(guard(
        "sync-everything-after-a-trimmed-log",
        "crates/engine/src/sync/follow.rs",
        "if !progress.merged || progress.position < bounds.trimmed {",
        "if !progress.merged {",
    )),
    of_two_truths(guard(
        "sync-position-behind-what-is-taken-over",
        "crates/engine/src/sync/follow.rs",
        "        self.merge(keys.into_iter().collect(), &times, progress).await?;\n",
        "        progress.position = last;\n        progress.save(self.own.truth.as_ref(), of_records).await?;\n        self.merge(keys.into_iter().collect(), &times, progress).await?;\n",
    )),
    of_two_truths(guard(
        "sync-forgets-deletions-both-have-passed",
        "crates/engine/src/sync/follow.rs",
        ".filter(|stored| stored.version <= there.position)",
        "",
    )),
    of_two_truths(guard(
        "sync-forgets-nothing-it-has-not-seen",
        "crates/engine/src/sync/follow.rs",
        "if self.peer.truth.bounds().await?.head > progress.position {",
        "if false {",
    )),
    of_two_truths(guard(
        "sync-knows-what-was-forgotten",
        "crates/engine/src/sync/follow.rs",
        "        progress.floor = progress.position;\n",
        "",
    )),
    of_two_truths(guard(
        "sync-forgotten-deletions-are-passed",
        "crates/engine/src/sync/merge.rs",
        "if their_state.dot(self.peer.number) <= here.floor.as_u64() {",
        "if false {",
    )),
    of_two_truths(guard(
        "sync-reads-the-other-side-first",
        "crates/engine/src/sync/merge.rs",
        "        let mine = self.own.held(common, &keys, false).await?;\n",
        "        let mine = self.own.held(common, &keys, false).await?;\n        let theirs = self.peer.held(common, &keys, true).await?;\n",
    )),
    of_two_truths(guard(
        "sync-looks-again-when-misjudged",
        "crates/engine/src/sync/merge.rs",
        "if newest.is_none() && !is_misjudged {",
        "if newest.is_none() {",
    )),
    of_two_truths(guard(
        "sync-waits-for-the-clock",
        "crates/engine/src/sync/merge.rs",
        "(stamp.millis > now.saturating_add(drift)).then(",
        "(stamp.millis > now.saturating_add(drift) && false).then(",
    )),
    of_two_truths(guard(
        "sync-record-unless-written-meanwhile",
        "crates/engine/src/sync/merge.rs",
        "            condition: Condition::Version(version),",
        "            condition: if version.is_some() { Condition::Present } else { Condition::None },",
    )),
    of_two_truths(guard(
        "sync-memory-unless-written-meanwhile",
        "crates/engine/src/sync/memory.rs",
        "        condition: Condition::Version(replaces),",
        "        condition: { let _ = replaces; Condition::None },",
    )),
    of_two_truths(guard(
        "sync-records-what-gave-way",
        "crates/engine/src/sync/merge.rs",
        "            writes.push(conflict.write(&common.memories)?);",
        "            drop(conflict.write(&common.memories)?);",
    )),
    of_two_truths(guard(
        "sync-reads-one-moment",
        "crates/engine/src/sync/side.rs",
        "if version != after.map(|known| known.version) {",
        "if false && version != after.map(|known| known.version) {",
    )),
    of_two_truths(guard(
        "sync-memory-is-about-this-record",
        "crates/engine/src/sync/side.rs",
        "known.is_about(record))",
        "known.is_about(record) || true)",
    )),
    of_two_truths(guard(
        "sync-times-of-this-version",
        "crates/engine/src/sync/side.rs",
        "(Some(last), Some(stored)) if last.position == stored.version => time = last.time,",
        "(Some(last), Some(_)) => time = last.time,",
    )),
    of_two_truths(guard(
        "conflict-seen-what-was-forgotten",
        "crates/policy/src/conflict/plan.rs",
        "            seen: write.floor.max(before.dot(1 - side)),",
        "            seen: before.dot(1 - side),",
    )),
    of_two_truths(guard(
        "conflict-clock-after-what-was-seen",
        "crates/policy/src/conflict/plan.rs",
        "Stamp::after(write.time, before.stamp())",
        "Stamp::after(write.time, Stamp::default())",
    )),
    of_two_truths(guard(
        "conflict-counters-begin-anew-with-the-record",
        "crates/policy/src/conflict/plan.rs",
        "let reset = was.is_none().then(||",
        "let reset = (was.is_none() && false).then(||",
    )),
    of_two_truths(guard(
        "conflict-common-past-is-counted-once",
        "crates/policy/src/conflict/plan.rs",
        "                && a.old\n                && b.old\n",
        "                && a.old\n                && b.old\n                && false\n",
    )),
    of_two_truths(guard(
        "conflict-confirms-what-a-rule-decided",
        "crates/policy/src/conflict/plan.rs",
        "if !is_open && was.as_ref()",
        "if was.as_ref()",
    )),
    of_two_truths(guard(
        "conflict-neither-had-seen-the-other",
        "crates/policy/src/conflict/entry.rs",
        "            (true, false) => Standing::Of(0),\n",
        "            (true, _) => Standing::Of(0),\n",
    )),
];
