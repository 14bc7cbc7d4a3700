#!lua
-- Begins a new life: entries of another epoch are never read again, and go when their time is up.
-- KEYS: 1 fence, 2 recent, 3 previous.  ARGV: 1 epoch, 2 position
redis.call('UNLINK', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[2], '', ARGV[1])
redis.call('HSET', KEYS[3], '', ARGV[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'applied', ARGV[2], 'floor', ARGV[2], 'recent', ARGV[2], 'previous', ARGV[2])
return 1
