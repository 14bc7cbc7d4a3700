#!lua flags=allow-oom
-- Removes records of one part while it is being emptied, and everything else of it once none is left.
-- KEYS: 1 ledger, 2 index, 3 deletions, 4.. sorted sets, keys of records and of the fields beside them
-- ARGV: 1 the mark of this emptying, 2.. ids of the records
-- Answers 0 if somebody else has taken over, 1 if records are left, 2 when the part is empty.
if redis.call('HGET', KEYS[1], '') ~= ARGV[1] then return 0 end
if #KEYS > 3 then redis.call('UNLINK', unpack(KEYS, 4)) end
if #ARGV > 1 then redis.call('ZREM', KEYS[2], unpack(ARGV, 2)) end
if redis.call('ZCARD', KEYS[2]) > 0 then return 1 end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
return 2
