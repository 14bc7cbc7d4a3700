//! What clients read: one record, a page, a number, groups, with every consistency.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use unisono_core::query::{Aggregate, Comparison, Filter, Metric, Path, Query};
use unisono_core::{Consistency, Context, Position, Result, Role, Value};
use unisono_engine::{Answer, CacheStatus, Engine};

use crate::acknowledged;
use crate::history::{Answered, Claim, Question, Read};
use crate::workload::{Client, last_seen, only_position};

impl Client {
    /// Reads one record.
    pub(crate) async fn read(&mut self, engine: &Engine) {
        let key = self.key();
        let Ok(entity) = engine.entity("thing") else { return };
        let (mut context, mut demanded) = self.demand();
        context.quorum = self.random.random_bool(0.1).then(|| self.random.random_range(2..5));
        let quorum = context.quorum.or(self.shape.read.quorum).filter(|count| *count > 1);
        if let Some(count) = quorum {
            demanded = demanded.max(acknowledged::seen_by_a_quorum(&self.history, &key, count));
        }
        let result = engine.get(&context, entity, &key).await;
        self.history.trace_result(
            &format!("client {} reads {key} {:?} {demanded}", self.name, context.consistency),
            &result,
        );
        let Ok(answer) = result else { return };
        self.note_cache(&answer);
        if quorum.is_some() {
            self.history.count("read answered by a quorum");
        }
        self.history.count(match answer.role {
            Role::Truth => "read answered by the truth",
            Role::Follower => "read answered by a follower",
            Role::Cache if answer.stale => "cache hit, stale",
            Role::Cache => "cache hit",
            Role::Journal => "read answered by the journal",
            Role::Vault | Role::Outlet => unreachable!("a vault answers no reads"),
        });
        if answer.cache == CacheStatus::Pending {
            self.known = None;
            self.token = answer.token;
            return;
        }
        let version = answer.value.as_ref().map(|s| s.version);
        let image = answer.value.as_ref().map(|s| Arc::clone(&s.record));
        let claim = self.claim(&context, demanded, &answer);
        self.known = Some((key.clone(), version));
        self.token = answer.token;
        self.history.seen().reads.push(Read { key, claim, version, image });
    }

    fn note_cache<T>(&self, answer: &Answer<T>) {
        match answer.cache {
            CacheStatus::Miss { shared: true, .. } => self.history.count("read shared"),
            CacheStatus::Hit { refreshing: true, .. } => {
                self.history.count("cache hit, read again meanwhile");
            }
            _ => {}
        }
    }

    /// What a read demands: the context, and the position that it stands for.
    fn demand(&mut self) -> (Context, Position) {
        let (consistency, demanded) = match self.random.random_range(0..10) {
            0 => (Consistency::Strong, self.history.head()),
            1..3 => (Consistency::Eventual, Position::ZERO),
            _ => (Consistency::Session, only_position(&self.token)),
        };
        let timeout = Duration::from_secs(2);
        let token = self.token.clone();
        (Context { token, timeout, consistency, ..Context::default() }, demanded)
    }

    fn claim<T>(&self, context: &Context, demanded: Position, answer: &Answer<T>) -> Claim {
        Claim {
            demanded,
            seen: match context.consistency {
                Consistency::Eventual => 0,
                _ => last_seen(&context.token),
            },
            position: answer.position,
            token: only_position(&answer.token),
            source: Arc::clone(&answer.source),
            stale: answer.stale,
            shown: format!("{} ({:?}, {:?})", answer.source, context.consistency, answer.cache),
            tampered: self.history.seen().tampered,
        }
    }

    /// Asks which records have at least some stock: for a page of them, their number, or their number by stock.
    pub(crate) async fn ask(&mut self, engine: &Engine) {
        let stock_min = self.stock();
        let stock = Path::whole(1);
        let filter = Filter::Compare(stock.clone(), Comparison::Gte, Value::Integer(stock_min));
        let (context, demanded) = self.demand();
        let result = match self.random.random_range(0..4) {
            0..2 => self.page(engine, &context, filter).await,
            2 => self.count(engine, &context, filter).await,
            _ => self.groups(engine, &context, filter, stock).await,
        };
        self.history.trace_result(
            &format!("client {} asks for stock of {stock_min} {demanded}", self.name),
            &result.as_ref().map(|a| (&a.source, a.position, a.stale)).map_err(|e| e.duplicate()),
        );
        let Ok(answer) = result else { return };
        self.history.count(match answer.role {
            Role::Truth => "question answered by the truth",
            _ => "question answered by a follower",
        });
        if answer.stale {
            self.history.count("question answered, stale");
        }
        let claim = self.claim(&context, demanded, &answer);
        self.token = answer.token;
        let end = self.history.head();
        let question = Question { stock_min, claim, end, answer: answer.value };
        self.history.seen().questions.push(question);
    }

    async fn page(
        &self,
        engine: &Engine,
        context: &Context,
        filter: Filter,
    ) -> Result<Answer<Answered>> {
        let query = Query { filter, limit: Query::LIMIT_MAX, ..Query::all() };
        let answer = engine.query(context, engine.entity("thing")?, &query).await?;
        let whole = answer.value.next.is_none();
        let found = answer.value.hits.iter().map(|hit| &hit.stored);
        let found: BTreeMap<_, _> =
            found.map(|s| (s.key.clone(), (s.version, Arc::clone(&s.record)))).collect();
        let count = found.len() as u64;
        // Of a page that is not the last, only its length is known to be right.
        let answered = if whole { Answered::Page(found) } else { Answered::AtLeast(count) };
        Ok(with(answer, answered))
    }

    async fn count(
        &self,
        engine: &Engine,
        context: &Context,
        filter: Filter,
    ) -> Result<Answer<Answered>> {
        let answer = engine.count(context, engine.entity("thing")?, &filter, None).await?;
        let count = answer.value;
        Ok(with(answer, Answered::Count(count)))
    }

    async fn groups(
        &self,
        engine: &Engine,
        context: &Context,
        filter: Filter,
        by: Path,
    ) -> Result<Answer<Answered>> {
        let aggregate = Aggregate {
            filter,
            unnest: None,
            group_by: vec![by],
            metrics: vec![("records".to_owned(), Metric::Count)],
            order: Vec::new(),
            limit: Aggregate::LIMIT_DEFAULT,
        };
        let answer = engine.aggregate(context, engine.entity("thing")?, &aggregate).await?;
        let groups = answer.value.groups.iter().filter_map(|group| {
            match (group.keys.as_slice(), group.metrics.as_slice()) {
                ([Value::Integer(stock)], [Value::Integer(count)]) => {
                    Some((*stock, u64::try_from(*count).ok()?))
                }
                _ => None,
            }
        });
        let groups = groups.collect();
        Ok(with(answer, Answered::Groups(groups)))
    }
}

fn with<T, U>(answer: Answer<T>, value: U) -> Answer<U> {
    let Answer { source, role, replica, position, token, age, stale, cache, rule, failed, .. } =
        answer;
    Answer { value, source, role, replica, position, token, age, stale, cache, rule, failed }
}
