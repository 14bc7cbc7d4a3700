#!lua flags=no-writes
-- Records of one part by their ids, with the mark of the same moment.
-- KEYS: 1 ledger, 2.. the key of each record
-- ARGV: 1 'h' for hashes or 's' for strings, 2 how many bytes to read before stopping, 3.. the id of each record
-- Answers the mark, then version and value of each record; fewer records than asked for when the bytes are reached.
local answer = {redis.call('HGET', KEYS[1], '') or ''}
local left = tonumber(ARGV[2])
for n = 2, #KEYS do
  if left < 0 then break end
  local version, value = redis.call('HGET', KEYS[1], ARGV[n + 1]) or '', false
  if #version == 20 then
    -- A key that somebody replaced by another type holds no record.
    value = redis.pcall(ARGV[1] == 'h' and 'HGETALL' or 'GET', KEYS[n])
    if type(value) == 'string' then
      left = left - #value
    elseif type(value) == 'table' then
      if value.err then value = false end
      for _, part in ipairs(value or {}) do left = left - #part end
    end
  end
  answer[#answer + 1] = version
  answer[#answer + 1] = value
end
return answer
