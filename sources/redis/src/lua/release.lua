#!lua flags=allow-oom
-- Ends a lease, unless somebody else has it by now.  KEYS: 1 lease.  ARGV: 1 who had it
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 1
