/* One launch of the host twin in a process of its own, for sanitizers: NAME GRID RAW BLOCK OUT, files of exact size. */
#include "prepare.cu"

#include <stdio.h>

static void *all_of(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    void *bytes;
    if (!file || fseek(file, 0, SEEK_END) || (*size = (size_t)ftell(file)) == 0)
        exit(3);
    rewind(file);
    bytes = malloc(*size);
    if (!bytes || fread(bytes, 1, *size, file) != *size)
        exit(3);
    fclose(file);
    return bytes;
}

int main(int count, char **arguments)
{
    size_t raw_size, block_size, out_size;
    unsigned grid[3], block[3] = {256, 1, 1};
    FILE *file;
    if (count != 6 || sscanf(arguments[2], "%u,%u,%u", &grid[0], &grid[1], &grid[2]) != 3)
        return 2;
    void *raw = all_of(arguments[3], &raw_size), *words = all_of(arguments[4], &block_size);
    void *out = all_of(arguments[5], &out_size);
    void *params[3] = {&raw, &out, &words};
    (strcmp(arguments[1], "edgemed_direct") ? edgemed_resample_host : edgemed_direct_host)(params, grid, block, 0);
    file = fopen(arguments[5], "wb");
    if (!file || fwrite(out, 1, out_size, file) != out_size || fclose(file))
        return 4;
    free(raw);
    free(words);
    free(out);
    return 0;
}
