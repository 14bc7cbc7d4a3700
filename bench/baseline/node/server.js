// The products service as it is usually written: Express, pg and redis, cache-aside, one process.
'use strict';

const fs = require('fs');
const express = require('express');
const { Pool } = require('pg');
const { createClient } = require('redis');

const env = process.env;
const ca = fs.readFileSync(env.BASELINE_CA, 'utf8');
const caRedis = fs.readFileSync(env.BASELINE_CA_REDIS, 'utf8');
const TTL_SECONDS = 60;
const FIELDS = ['id', 'department', 'category', 'type', 'brand', 'manufacturer', 'package_size', 'price', 'stock'];
const COLUMNS = FIELDS.join(', ');

const pool = (url) => new Pool({
  connectionString: url, max: 20, ssl: { ca }, options: `-c search_path="${env.BASELINE_SCHEMA}"`,
});
const primary = pool(env.BASELINE_PRIMARY);
const replica = pool(env.BASELINE_REPLICA);
const cache = createClient({ url: env.BASELINE_REDIS, socket: { tls: true, ca: caRedis } });
cache.on('error', () => {});
const cacheKey = (id) => `${env.BASELINE_PREFIX}:product:${id}`;
// Integers of 64 bits come as text from pg.
const product = (row) => ({ ...row, stock: row.stock === null ? null : Number(row.stock) });

async function fromReplica(name, text, values) {
  try {
    const { rows } = await replica.query({ name, text, values });
    if (rows.length > 0) return { rows, source: 'replica' };
  } catch { /* the primary is asked instead */ }
  const { rows } = await primary.query({ name, text, values });
  return { rows, source: 'primary' };
}

const attempt = (promise) => promise.catch(() => null);
const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.use(express.json());

app.get('/products/:id', async (req, res) => {
  const key = cacheKey(req.params.id);
  const cached = await attempt(cache.get(key));
  if (cached) return res.set('X-Source', 'cache').type('json').send(cached);
  const { rows, source } = await fromReplica('get', `SELECT ${COLUMNS} FROM by_hand WHERE id = $1`, [req.params.id]);
  if (rows.length === 0) return res.status(404).json({ error: 'not found' });
  const text = JSON.stringify(product(rows[0]));
  await attempt(cache.set(key, text, { EX: TTL_SECONDS }));
  res.set('X-Source', source).type('json').send(text);
});

app.get('/products', async (req, res) => {
  const limit = Math.min(Number(req.query.limit) || 50, 1000);
  const { rows, source } = await fromReplica('list', `SELECT ${COLUMNS} FROM by_hand ORDER BY id LIMIT $1`, [limit]);
  res.set('X-Source', source).json({ items: rows.map(product) });
});

app.post('/products', async (req, res) => {
  const marks = FIELDS.map((_, n) => `$${n + 1}`).join(', ');
  await primary.query(`INSERT INTO by_hand (${COLUMNS}) VALUES (${marks})`, FIELDS.map((f) => req.body[f] ?? null));
  res.status(201).json(req.body);
});

app.put('/products/:id', async (req, res) => {
  const sets = FIELDS.slice(1).map((f, n) => `${f} = $${n + 2}`).join(', ');
  const values = [req.params.id, ...FIELDS.slice(1).map((f) => req.body[f] ?? null)];
  const text = `UPDATE by_hand SET ${sets} WHERE id = $1`;
  const { rowCount } = await primary.query({ name: 'update', text, values });
  if (rowCount === 0) return res.status(404).json({ error: 'not found' });
  await attempt(cache.unlink(cacheKey(req.params.id)));
  res.json(req.body);
});

app.delete('/products/:id', async (req, res) => {
  await primary.query('DELETE FROM by_hand WHERE id = $1', [req.params.id]);
  await attempt(cache.unlink(cacheKey(req.params.id)));
  res.status(204).end();
});

app.use((error, req, res, next) => res.status(500).json({ error: error.message }));

attempt(cache.connect()).then(() => app.listen(Number(env.BASELINE_PORT), '127.0.0.1'));
