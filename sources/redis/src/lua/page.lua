#!lua flags=no-writes
-- Ids of one part in the order of keys, with the mark of the same moment.
-- KEYS: 1 ledger, 2 index.  ARGV: 1 from, 2 to (both as ZRANGEBYLEX takes them), 3 how many at most
-- Answers the mark, how many ids there are in all, and the ids.
return {
  redis.call('HGET', KEYS[1], '') or '',
  redis.call('ZCARD', KEYS[2]),
  redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))
}
