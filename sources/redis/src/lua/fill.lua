#!lua
-- Offers an entry that was read at a position; answers 'epoch', 'outdated' or 'stored'.
-- KEYS: 1 fence, 2 recent, 3 previous, 4 entry, 5 lease, 6 where other programs read the record, if they do
-- ARGV: 1 epoch seen at the lookup, 2 version, 3 position of the read, 4 id, 5 when it ends, 6 milliseconds to keep
--       it, 7 what follows epoch and version in the entry, 8 who fills
-- Entries begin with epoch (16), version (20) and expiry (20 characters); all of them compare as text.
local epoch, version, read = ARGV[1], ARGV[2], ARGV[3]
local found = redis.call('MGET', KEYS[5], KEYS[1], KEYS[4])
local lease, fence, cached = found[1], found[2] or '', found[3] or ''
-- Whatever becomes of the fill: who waits for it has waited long enough.
if lease == ARGV[8] then redis.call('UNLINK', KEYS[5]) end
if string.sub(fence, 1, 16) ~= epoch then return 'epoch' end
-- The lists of changed keys carry the epoch too: one that was evicted or deleted must not pass for an empty one.
local recent, previous = redis.call('HMGET', KEYS[2], '', ARGV[4]), redis.call('HMGET', KEYS[3], '', ARGV[4])
if recent[1] ~= epoch or previous[1] ~= epoch then return 'outdated' end
if string.sub(fence, 37, 56) > read then return 'outdated' end
local changed = recent[2] or previous[2]
if changed and changed > read then return 'outdated' end
if #cached >= 56 and string.sub(cached, 1, 16) == epoch then
  local held = string.sub(cached, 17, 36)
  -- The same version makes room for itself if it then lives longer.
  if held > version or (held == version and ARGV[5] <= string.sub(cached, 37, 56)) then return 'outdated' end
end
redis.call('SET', KEYS[4], epoch .. version .. ARGV[7], 'PX', ARGV[6])
-- Expiry and time of reading (40 characters) and a flag stand before the JSON.
if KEYS[6] and string.sub(ARGV[7], 41, 41) == 'R' then
  redis.call('SET', KEYS[6], string.sub(ARGV[7], 42), 'PX', ARGV[6])
elseif KEYS[6] then
  redis.call('UNLINK', KEYS[6])
end
return 'stored'
