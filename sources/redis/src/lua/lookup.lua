-- What a cache knows of one key, in one moment, and who is to read the record unless the entry is live.
-- No flags on purpose: a script that declares that it may write is refused as a whole by a server that is full or takes
-- no writes, and entries must be found there all the same. Only the lease is then not given.
-- KEYS: 1 fence, 2 entry, 3 lease if one is wanted
-- ARGV: 1 in one, since each costs every hit: when an entry must be live (20 characters), who asks (16), and the
--       milliseconds after which the lease ends
-- Answers epoch, applied and entry, and who holds the lease unless none is given
local answer = redis.call('HMGET', KEYS[1], 'epoch', 'applied')
if not answer[1] then return {} end
local entry = redis.call('GET', KEYS[2])
answer[3] = entry
if not KEYS[3] then return answer end
-- What follows the time in the argument makes it the greater of two equal times.
if entry and string.sub(entry, 37, 56) > ARGV[1] and string.find(entry, answer[1], 1, true) == 1 then return answer end
local holder = string.sub(ARGV[1], 21, 36)
local before = redis.pcall('SET', KEYS[3], holder, 'NX', 'GET', 'PX', string.sub(ARGV[1], 37))
if type(before) ~= 'table' then answer[4] = before or holder end
return answer
