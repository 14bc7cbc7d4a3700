#!lua
-- Drops entries, in whichever life they are.  KEYS: the entries, and where other programs read their records
return redis.call('UNLINK', unpack(KEYS))
