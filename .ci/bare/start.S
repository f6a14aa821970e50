/* From the boot loader's 32 bits to C: pages of 2 MiB for 4 GiB, each at its own address; all registers of x87, SSE, AVX and AVX-512. */
    .section .note.GNU-stack, "", @progbits
    .text
    .align 4
    .long 0x1BADB002, 3, -(0x1BADB002 + 3)
    .code32
    .global _start
_start:
    cli
    movl %ebx, %edi
    movl $tables + 4096, %eax       /* four directories after the two upper tables */
    orl $3, %eax
    movl %eax, tables
    movl $tables + 8192 + 3, %eax
    xorl %ecx, %ecx
1:  movl %eax, tables + 4096(, %ecx, 8)
    addl $4096, %eax
    incl %ecx
    cmpl $4, %ecx
    jne 1b
    movl $0x83, %eax
    xorl %ecx, %ecx
2:  movl %eax, tables + 8192(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 2b
    movl $0x40620, %eax             /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
    movl %eax, %cr4
    movl $tables, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx          /* EFER: long mode, SYSCALL */
    rdmsr
    orl $0x101, %eax
    wrmsr
    movl $0x80000023, %eax          /* PG, NE, MP, PE */
    movl %eax, %cr0
    lgdt descriptor
    ljmp $8, $long

    .code64
long:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %edi, %esi
    movl $13, %eax                  /* of x87, SSE, AVX and AVX-512's state what the CPU has */
    xorl %ecx, %ecx
    cpuid
    andl $0xE7, %eax
    xorl %ecx, %ecx
    xorl %edx, %edx
    xsetbv
    fninit
    movabsq $stack_top, %rsp
    movl %esi, %edi
    call start

    .global enter
enter:                              /* a program's first instruction, its stack */
    movq %rsi, %rsp
    xorl %edx, %edx
    jmp *%rdi

    .global system_call_entry
system_call_entry:
    movq %rsp, caller(%rip)
    leaq stack_top(%rip), %rsp
    pushq %r11
    pushq %rcx
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %r10
    pushq %r8
    pushq %r9
    movq %rax, %rdi
    movq %rsp, %rsi
    cld
    call system_call
    popq %r9
    popq %r8
    popq %r10
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rcx
    popfq
    movq caller(%rip), %rsp
    jmp *%rcx

    .data
    .align 16
gdt:
    .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF
descriptor:
    .word 23
    .long gdt
caller: .quad 0

    .bss
    .align 4096
tables: .skip 6 * 4096
    .skip 65536
stack_top:
