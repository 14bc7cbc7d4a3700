#!lua
-- Lets go of the right to flush a journal.  KEYS: 1 the right.  ARGV: 1 who lets go
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('HDEL', KEYS[1], 'holder', 'ends') end
return 1
