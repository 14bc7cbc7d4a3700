-- What a journal has kept and let go of since a moment; it only reads.
-- KEYS: 1 entries, 2 the last sequence, 3 removals
-- ARGV: 1 sequence, 2 removal or '', 3 how many entries at most, 4 how many removals
-- Answers the last sequence, entries, and removals: only the last of them after ''
local entries, removals = {}, nil
if tonumber(ARGV[3]) > 0 then
  entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[3])
end
if ARGV[2] == '' then
  removals = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
else
  removals = redis.call('XRANGE', KEYS[3], '(' .. ARGV[2], '+', 'COUNT', ARGV[4])
end
return {redis.call('GET', KEYS[2]) or '0', entries, removals}
