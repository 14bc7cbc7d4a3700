#!lua
-- Begins a new life: entries of another epoch are never read again, and go when their time is up.
-- KEYS: 1 fence, 2 recent, 3 previous.  ARGV: 1 epoch, 2 position, 3 the log that it follows
redis.call('UNLINK', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[2], '', ARGV[1])
redis.call('HSET', KEYS[3], '', ARGV[1])
redis.call('SET', KEYS[1], ARGV[1] .. string.rep(ARGV[2], 4) .. ARGV[3])
return 1
