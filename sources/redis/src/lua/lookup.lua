-- What a cache knows of one key, in one moment, and who is to read the record unless the entry is live.
-- No flags on purpose: a script that declares that it may write is refused as a whole by a server that is full or takes
-- no writes, and entries must be found there all the same. Only the lease is then not given.
-- KEYS: 1 fence, 2 entry, 3 lease
-- ARGV: 1 when an entry must be live (20 characters), 2 who asks, 3 the milliseconds after which the lease ends
-- Answers fence and entry, and who holds the lease unless none is given
local answer = redis.call('MGET', KEYS[1], KEYS[2])
local fence, entry = answer[1], answer[2]
local is_live = fence and entry and string.sub(entry, 37, 56) > ARGV[1]
  and string.sub(entry, 1, 16) == string.sub(fence, 1, 16)
if is_live or not fence then return answer end
local before = redis.pcall('SET', KEYS[3], ARGV[2], 'NX', 'GET', 'PX', ARGV[3])
if type(before) ~= 'table' then answer[3] = before or ARGV[2] end
return answer
