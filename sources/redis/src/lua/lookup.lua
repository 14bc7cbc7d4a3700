#!lua flags=no-writes
-- What a cache knows of one key, in one moment.  KEYS: 1 fence, 2 entry
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'applied')
if not fence[1] then return {} end
return {fence[1], fence[2], redis.call('GET', KEYS[2])}
