/* A kernel for one program at a time, on a PC without an operating system: it turns on what registers AVX-512 needs, and runs static
 * ELF programs for Linux that compute and print, one after another. A boot loader (Multiboot) gives them as modules: the name, variables
 * of the environment (with `=`), arguments. They run in ring 0 without interrupts or memory protection; what they print goes to port 0xE9,
 * which Bochs shows. Fewer system calls than these are enough for glibc and Rust's std as long as nothing starts a thread or opens a file. */
#include <elf.h>
#include <stddef.h>
#include <stdint.h>

struct frame { uint64_t r9, r8, r10, rdx, rsi, rdi, rcx, r11; };
struct module { uint32_t start, end, string, reserved; };
struct multiboot { uint32_t flags, mem[2], boot_device, cmdline, mods_count, mods_addr; };

enum { PAGE = 4096, HEAP = 96 << 20, STACK = 8 << 20 };
static const struct multiboot *boot;
static uint32_t module;
static uint64_t top = 256 << 20, heap, heap_end, unknown;

void enter(uint64_t entry, uint64_t stack);

void *memcpy(void *to, const void *from, size_t n) {
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}
void *memset(void *to, int byte, size_t n) {
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
    return start;
}
static void out(uint16_t port, uint8_t byte) { __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"(port)); }
static void print(const char *text) { while (*text) out(0xE9, *text++); }
static void print_number(uint64_t n) {
    char text[21] = {0}, *at = text + 20;
    do *--at = '0' + n % 10; while (n /= 10);
    print(at);
}
static void wrmsr(uint32_t msr, uint64_t value) {
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}
static uint64_t take(uint64_t bytes) {
    uint64_t at = top;
    top = (top + bytes + PAGE - 1) & -PAGE;
    memset((void *)at, 0, top - at);
    return at;
}

/* Starts the next module; ends the machine after the last. */
static void next(void) {
    if (module == boot->mods_count) {
        print("= end\n");
        for (const char *c = "Shutdown"; *c; c++) out(0x8900, *c);
        for (;;) __asm__ volatile("hlt");
    }
    const struct module *m = (const struct module *)(uint64_t)boot->mods_addr + module++;
    print("= ");
    print((const char *)(uint64_t)m->string);
    print("\n");
    const Elf64_Ehdr *elf = (const Elf64_Ehdr *)(uint64_t)m->start;
    const Elf64_Phdr *headers = (const Elf64_Phdr *)((uint64_t)elf + elf->e_phoff);
    uint64_t size = 0;
    for (int i = 0; i < elf->e_phnum; i++)
        if (headers[i].p_type == PT_LOAD && headers[i].p_vaddr + headers[i].p_memsz > size) size = headers[i].p_vaddr + headers[i].p_memsz;
    top = 256 << 20;
    uint64_t base = take(size);
    for (int i = 0; i < elf->e_phnum; i++)
        if (headers[i].p_type == PT_LOAD) memcpy((void *)(base + headers[i].p_vaddr), (char *)elf + headers[i].p_offset, headers[i].p_filesz);
    heap = take(HEAP);
    heap_end = heap + HEAP;

    uint64_t stack = take(STACK) + STACK - PAGE;
    char *words = (char *)stack + 1024;
    for (const char *from = (const char *)(uint64_t)m->string; (*words = *from); words++, from++) {}
    words = (char *)stack + 1024;
    char *args[16] = {0}, *env[16] = {0};
    int argc = 0, envc = 0;
    for (char *at = words; *at && argc < 15 && envc < 15;) {
        char *word = at;
        int variable = 0;
        for (; *at && *at != ' '; at++) variable |= *at == '=';
        if (*at) *at++ = 0;
        if (variable) env[envc++] = word; else args[argc++] = word;
    }
    uint64_t aux[] = {AT_PHDR, base + elf->e_phoff, AT_PHENT, elf->e_phentsize, AT_PHNUM, elf->e_phnum, AT_PAGESZ, PAGE, AT_ENTRY,
                      base + elf->e_entry, AT_SECURE, 0, AT_UID, 0, AT_EUID, 0, AT_GID, 0, AT_EGID, 0, AT_RANDOM, base, AT_NULL, 0};
    uint64_t *at = (uint64_t *)stack;
    *at++ = argc;
    for (int i = 0; i <= argc; i++) *at++ = (uint64_t)args[i];
    for (int i = 0; i <= envc; i++) *at++ = (uint64_t)env[i];
    memcpy(at, aux, sizeof aux);
    enter(base + elf->e_entry, stack);
}

uint64_t system_call(uint64_t number, const struct frame *f) {
    switch (number) {
    case 1: /* write */
        for (uint64_t i = 0; i < f->rdx; i++) out(0xE9, ((const char *)f->rsi)[i]);
        return f->rdx;
    case 20: { /* writev */
        uint64_t n = 0;
        for (uint64_t v = 0; v < f->rdx; v++) {
            const uint64_t *part = (const uint64_t *)f->rsi + 2 * v;
            for (uint64_t i = 0; i < part[1]; i++) out(0xE9, ((const char *)part[0])[i]);
            n += part[1];
        }
        return n;
    }
    case 9: { /* mmap, without a file */
        if ((int64_t)f->r8 >= 0) return -19;
        return top + f->rsi > (1000ull << 20) ? -12ull : take(f->rsi);
    }
    case 12: /* brk */
        if (f->rdi >= heap_end - HEAP && f->rdi <= heap_end) heap = f->rdi;
        return heap;
    case 158: /* arch_prctl: FS */
        if (f->rdi != 0x1002) return -22;
        wrmsr(0xC0000100, f->rsi);
        return 0;
    case 318: /* getrandom: nothing that is printed depends on it */
        memset((void *)f->rdi, 7, f->rsi);
        return f->rsi;
    case 0: /* read, of what was opened */
        memset((void *)f->rsi, 7, f->rdx);
        return f->rdx;
    case 7: /* poll: of one file, that it can be read */
        if (f->rsi != 1) return 0;
        ((uint16_t *)f->rdi)[3] = 1;
        return 1;
    case 39: case 186: case 218: /* getpid, gettid, set_tid_address */
        return 1;
    case 3: case 10: case 11: case 13: case 14: case 28: case 131: case 202: case 273: case 302:
        /* close, mprotect, munmap, signals, madvise, futex, robust list, limits: as if done */
        return 0;
    case 60: case 231: /* exit */
        if (f->rdi) { print("= failed "); print_number(f->rdi); print("\n"); }
        next();
        return 0;
    case 228: /* clock_gettime, of a clock with a tick a nanosecond */
        ((uint64_t *)f->rsi)[0] = __builtin_ia32_rdtsc() / 1000000000;
        ((uint64_t *)f->rsi)[1] = __builtin_ia32_rdtsc() % 1000000000;
        return 0;
    case 257: /* openat: a file of /dev is random numbers, others are not there */
        return *(const uint32_t *)f->rsi == 0x7665642f ? 3 : -2;
    case 2: case 89: case 262: case 267: case 332: /* files */
        return -2;
    case 25: case 204: /* mremap, sched_getaffinity: done without */
        return -38;
    default:
        if (number < 64 && !(unknown >> number & 1)) { unknown |= 1ull << number; print("? system call "); print_number(number); print("\n"); }
        return -38;
    }
}

void start(uint64_t info) {
    extern char system_call_entry[];
    boot = (const struct multiboot *)info;
    wrmsr(0xC0000081, 8ull << 32);
    wrmsr(0xC0000082, (uint64_t)system_call_entry);
    wrmsr(0xC0000084, 0);
    next();
}
