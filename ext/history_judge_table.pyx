# A hash table for the judge of recorded sessions: millions of keys, without an object for each.

cdef inline uint64_t judge_hash(const uint8_t* at, size_t size) noexcept nogil:
    cdef uint64_t found = 0x9E3779B97F4A7C15
    cdef uint64_t word
    while size:
        word = 0
        memcpy(&word, at, min(size, <size_t> 8))
        found = (found ^ word) * <uint64_t> 0xFF51AFD7ED558CCD
        found ^= found >> 32
        at += min(size, <size_t> 8)
        size -= min(size, <size_t> 8)
    return found


@cython.final
cdef class JudgeTable:
    """A hash table of items of one size, which begin with their key. They are kept in blocks, and never move."""

    cdef size_t item_size, key_size
    cdef uint32_t* slots            # 1 + number of the item; 0: unused
    cdef uint64_t mask
    cdef readonly uint64_t count
    cdef uint64_t most
    cdef char** blocks
    cdef size_t block_count

    cdef int prepare(self, size_t item_size, size_t key_size, uint64_t most) except -1:
        self.item_size = item_size
        self.key_size = key_size
        self.most = most
        self.mask = 4095
        self.slots = <uint32_t*> calloc(self.mask + 1, sizeof(uint32_t))
        self.blocks = <char**> calloc(most // JUDGE_BLOCK + 1, sizeof(char*))
        if self.slots == NULL or self.blocks == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        cdef size_t at
        for at in range(self.block_count):
            free(self.blocks[at])
        free(self.blocks)
        free(self.slots)

    cdef inline char* item(self, uint64_t number) noexcept nogil:
        return self.blocks[number // JUDGE_BLOCK] + number % JUDGE_BLOCK * self.item_size

    cdef char* find(self, const uint8_t* key) noexcept nogil:
        """NULL: it is not in the table."""
        cdef uint64_t at = judge_hash(key, self.key_size) & self.mask
        cdef char* found
        while self.slots[at]:
            found = self.item(self.slots[at] - 1)
            if memcmp(found, key, self.key_size) == 0:
                return found
            at = (at + 1) & self.mask
        return NULL

    cdef char* add(self, const uint8_t* key) noexcept nogil:
        """A new item, with its key, the rest empty. NULL: the table is full, or there is no memory."""
        cdef uint64_t at
        cdef char* made
        if self.count == self.most or self.count * 2 > self.mask and not self.grow():
            return NULL
        if self.count % JUDGE_BLOCK == 0:
            made = <char*> calloc(JUDGE_BLOCK, self.item_size)
            if made == NULL:
                return NULL
            self.blocks[self.block_count] = made
            self.block_count += 1
        made = self.item(self.count)
        memcpy(made, key, self.key_size)
        self.count += 1
        at = judge_hash(key, self.key_size) & self.mask
        while self.slots[at]:
            at = (at + 1) & self.mask
        self.slots[at] = <uint32_t> self.count
        return made

    cdef uint32_t number(self, const char* item) noexcept nogil:
        """The number of an item: its key is found again."""
        cdef uint64_t at = judge_hash(<const uint8_t*> item, self.key_size) & self.mask
        while self.item(self.slots[at] - 1) != item:
            at = (at + 1) & self.mask
        return self.slots[at] - 1

    cdef bint grow(self) noexcept nogil:
        cdef uint64_t mask = self.mask * 2 + 1
        cdef uint32_t* slots = <uint32_t*> calloc(mask + 1, sizeof(uint32_t))
        cdef uint64_t at, number
        if slots == NULL:
            return False
        for number in range(self.count):
            at = judge_hash(<const uint8_t*> self.item(number), self.key_size) & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = <uint32_t> (number + 1)
        free(self.slots)
        self.slots = slots
        self.mask = mask
        return True

    cdef size_t memory(self) noexcept nogil:
        return (self.mask + 1) * sizeof(uint32_t) + self.block_count * JUDGE_BLOCK * self.item_size
