/* Sets of bytes, and those that have names. */
#include "store/table/regex_tree.h"
#include <string.h>

void lk__table_byte_set_add(struct lk__table_byte_set *s, unsigned from, unsigned to) {
    for (unsigned b = from; b <= to; b++) s->bits[b >> 6] |= UINT64_C(1) << (b & 63);
}
void lk__table_byte_set_join(struct lk__table_byte_set *s, const struct lk__table_byte_set *other) {
    for (int i = 0; i < 4; i++) s->bits[i] |= other->bits[i];
}
void lk__table_byte_set_negate(struct lk__table_byte_set *s) {
    for (int i = 0; i < 4; i++) s->bits[i] = ~s->bits[i];
}
void lk__table_byte_set_fold(struct lk__table_byte_set *s) {
    for (unsigned upper = 'A'; upper <= 'Z'; upper++)
        if (lk__table_byte_set_has(s, upper) || lk__table_byte_set_has(s, upper + 32)) {
            lk__table_byte_set_add(s, upper, upper);
            lk__table_byte_set_add(s, upper + 32, upper + 32);
        }
}

/* Ranges as pairs of characters. */
struct named {
    const char *name;
    uint8_t count; /* of the bytes in ranges */
    const char *ranges;
};
#define NAMED(name, ranges)                                                                                                \
    { name, sizeof(ranges) - 1, ranges }
static const struct named perl[] = {NAMED("d", "09"), NAMED("s", "\t\n\f\r  "), NAMED("w", "09AZ__az"), {0}};
static const struct named posix[] = {NAMED("alnum", "09AZaz"),
                                     NAMED("alpha", "AZaz"),
                                     NAMED("ascii", "\0\x7f"),
                                     NAMED("blank", "\t\t  "),
                                     NAMED("cntrl", "\0\x1f\x7f\x7f"),
                                     NAMED("digit", "09"),
                                     NAMED("graph", "!~"),
                                     NAMED("lower", "az"),
                                     NAMED("print", " ~"),
                                     NAMED("punct", "!/:@[`{~"),
                                     NAMED("space", "\t\r  "),
                                     NAMED("upper", "AZ"),
                                     NAMED("word", "09AZ__az"),
                                     NAMED("xdigit", "09AFaf"),
                                     {0}};
/* Of Unicode's first 256 characters; a category of one letter is all that begin with it. */
static const struct named unicode[] = {NAMED("Cc", "\x00\x1f\x7f\x9f"),
                                       NAMED("Cf", "\xad\xad"),
                                       NAMED("Co", ""),
                                       NAMED("Cs", ""),
                                       NAMED("Ll", "az\xb5\xb5\xdf\xf6\xf8\xff"),
                                       NAMED("Lm", ""),
                                       NAMED("Lo", "\xaa\xaa\xba\xba"),
                                       NAMED("Lt", ""),
                                       NAMED("Lu", "AZ\xc0\xd6\xd8\xde"),
                                       NAMED("Mc", ""),
                                       NAMED("Me", ""),
                                       NAMED("Mn", ""),
                                       NAMED("Nd", "09"),
                                       NAMED("Nl", ""),
                                       NAMED("No", "\xb2\xb3\xb9\xb9\xbc\xbe"),
                                       NAMED("Pc", "__"),
                                       NAMED("Pd", "--"),
                                       NAMED("Pe", "))]]}}"),
                                       NAMED("Pf", "\xbb\xbb"),
                                       NAMED("Pi", "\xab\xab"),
                                       NAMED("Po", "!#%'**,,./:;?@\\\\\xa1\xa1\xa7\xa7\xb6\xb7\xbf\xbf"),
                                       NAMED("Ps", "(([[{{"),
                                       NAMED("Sc", "$$\xa2\xa5"),
                                       NAMED("Sk", "^^``\xa8\xa8\xaf\xaf\xb4\xb4\xb8\xb8"),
                                       NAMED("Sm", "++<>||~~\xac\xac\xb1\xb1\xd7\xd7\xf7\xf7"),
                                       NAMED("So", "\xa6\xa6\xa9\xa9\xae\xae\xb0\xb0"),
                                       NAMED("Zl", ""),
                                       NAMED("Zp", ""),
                                       NAMED("Zs", "  \xa0\xa0"),
                                       NAMED("Any", "\x00\xff"),
                                       NAMED("Latin", "AZaz\xaa\xaa\xba\xba\xc0\xd6\xd8\xf6\xf8\xff"),
                                       NAMED("Common", "\x00@[`{\xa9\xab\xb9\xbb\xbf\xd7\xd7\xf7\xf7"),
                                       {0}};
/* Scripts of which no character is a byte: they are names, and match nothing. */
static const char others[] =
    " Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki Bopomofo "
    "Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee Chorasmian Coptic "
    "Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan "
    "Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya "
    "Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi Inscriptional_Parthian Javanese "
    "Kaithi "
    "Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Lao Lepcha Limbu Linear_A "
    "Linear_B "
    "Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek "
    "Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nag_Mundari "
    "Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian Old_Italic "
    "Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya "
    "Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada "
    "Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa "
    "Tai_Le "
    "Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi "
    "Wancho Warang_Citi Yezidi Yi Zanabazar_Square ";

static void add_ranges(struct lk__table_byte_set *out, const struct named *n) {
    for (size_t i = 0; i + 1 < n->count; i += 2)
        lk__table_byte_set_add(out, (unsigned char)n->ranges[i], (unsigned char)n->ranges[i + 1]);
}
/* All whose names begin with `name` if `head`, else the one that has it. */
static bool look_up(const struct named *table, struct lk_bytes name, bool head, struct lk__table_byte_set *out) {
    bool found = false;
    *out = (struct lk__table_byte_set){{0}};
    for (const struct named *n = table; n->name; n++) {
        size_t size = strlen(n->name);
        if ((head ? size != 2 : size != name.size) || memcmp(n->name, name.data, name.size) != 0) continue;
        add_ranges(out, n);
        found = true;
    }
    return found;
}
bool lk__table_byte_set_perl(char name, struct lk__table_byte_set *out) {
    bool negative = name >= 'A' && name <= 'Z';
    char lower = negative ? (char)(name + 32) : name;
    if (!look_up(perl, lk_bytes(&lower, 1), false, out)) return false;
    if (negative) lk__table_byte_set_negate(out);
    return true;
}
bool lk__table_byte_set_posix(struct lk_bytes name, struct lk__table_byte_set *out) {
    return name.size && look_up(posix, name, false, out);
}
bool lk__table_byte_set_unicode(struct lk_bytes name, struct lk__table_byte_set *out) {
    char word[40];
    if (!name.size || name.size > sizeof word - 3 || memchr(name.data, ' ', name.size) || memchr(name.data, 0, name.size))
        return false;
    if (look_up(unicode, name, name.size == 1, out)) return true;
    word[0] = ' ';
    memcpy(word + 1, name.data, name.size);
    memcpy(word + 1 + name.size, " ", 2);
    return strstr(others, word) != NULL;
}
