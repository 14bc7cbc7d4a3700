#!lua flags=no-writes
-- Records of one part by their ids, with the mark of the same moment.
-- KEYS: 1 ledger, 2.. sorted sets, then the key of each record, with the keys of its fields that stand beside it
-- ARGV: 1 'h' for hashes or 's' for strings, 2 how many bytes to read before stopping, 3 how many fields stand beside each
--       record, 4 how many sorted sets there are, 5.. the id of each record, then if there are sorted sets what they call it
-- Answers the mark, then of each record version, value, and if there is something beside it a list of that and of its scores;
-- fewer records than asked for when the bytes are reached.
local answer = {redis.call('HGET', KEYS[1], '') or ''}
local left, width, sets = tonumber(ARGV[2]), 1 + tonumber(ARGV[3]), tonumber(ARGV[4])
local count, place = (#KEYS - 1 - sets) / width, 2 + sets
for n = 1, count do
  if left < 0 then break end
  local version, value = redis.call('HGET', KEYS[1], ARGV[n + 4]) or '', false
  if #version == 20 then
    -- A key that somebody replaced by another type holds no record.
    value = redis.pcall(ARGV[1] == 'h' and 'HGETALL' or 'GET', KEYS[place])
    if type(value) == 'string' then
      left = left - #value
    elseif type(value) == 'table' then
      if value.err then value = false end
      for _, part in ipairs(value or {}) do left = left - #part end
    end
  end
  answer[#answer + 1] = version
  answer[#answer + 1] = value
  if width + sets > 1 then
    local beside = width > 1 and redis.call('MGET', unpack(KEYS, place + 1, place + width - 1)) or {}
    for s = 1, sets do
      local score = redis.pcall('ZMSCORE', KEYS[1 + s], ARGV[n + 4 + count])
      beside[width - 1 + s] = not score.err and score[1]
    end
    answer[#answer + 1] = beside
  end
  place = place + width
end
return answer
